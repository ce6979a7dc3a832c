// C++17 over tvm_ipu.h: objects that free themselves, exceptions, typed views of tensors. Link with libtvm_ipu.
//
//   tvm_ipu::Image image("net.img");
//   tvm_ipu::Session session(image, {/*plan=*/0, /*threads=*/4});
//   auto pixels = session.input<float>(0);
//   std::copy(begin, end, pixels.begin());
//   session.run();
//   for (float score : session.output<float>(0)) ...
#ifndef TVM_IPU_HPP
#define TVM_IPU_HPP

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tvm_ipu.h"

namespace tvm_ipu {

// What every failing call throws. what() is the message and, in brackets, the hint.
class Error : public std::runtime_error {
 public:
  explicit Error(const tvm_ipu_error& error)
      : std::runtime_error(error.hint[0] ? std::string(error.message) + " (" + error.hint + ")" : error.message),
        status_(error.status) {}
  Error(tvm_ipu_status status, const std::string& message) : std::runtime_error(message), status_(status) {}

  tvm_ipu_status status() const noexcept { return status_; }

 private:
  tvm_ipu_status status_;
};

// A view of `size` elements that someone else owns (std::span came with C++20 only).
template <typename T>
class Span {
 public:
  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t index) const { return data_[index]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

namespace detail {

inline void check(tvm_ipu_status status, const tvm_ipu_error& error) {
  if (status != TVM_IPU_OK) throw Error(error);
}

// True if elements of `dtype` can be looked at as T. 16-bit floats are seen as std::uint16_t, smaller types as bytes.
template <typename T>
bool holds(tvm_ipu_dtype dtype) {
  using U = std::remove_cv_t<T>;
  switch (dtype) {
    case TVM_IPU_BOOL: return std::is_same_v<U, bool> || std::is_same_v<U, std::uint8_t>;
    case TVM_IPU_INT8: return std::is_same_v<U, std::int8_t>;
    case TVM_IPU_UINT8:
    case TVM_IPU_FLOAT8_E4M3FN:
    case TVM_IPU_FLOAT8_E4M3FNUZ:
    case TVM_IPU_FLOAT8_E5M2:
    case TVM_IPU_FLOAT8_E5M2FNUZ:
    case TVM_IPU_FLOAT8_E8M0FNU:
    case TVM_IPU_FLOAT4_E2M1FN:
    case TVM_IPU_INT4:
    case TVM_IPU_UINT4:
    case TVM_IPU_INT2:
    case TVM_IPU_UINT2: return std::is_same_v<U, std::uint8_t>;
    case TVM_IPU_INT16: return std::is_same_v<U, std::int16_t>;
    case TVM_IPU_UINT16:
    case TVM_IPU_FLOAT16:
    case TVM_IPU_BFLOAT16: return std::is_same_v<U, std::uint16_t>;
    case TVM_IPU_INT32: return std::is_same_v<U, std::int32_t>;
    case TVM_IPU_UINT32: return std::is_same_v<U, std::uint32_t>;
    case TVM_IPU_INT64: return std::is_same_v<U, std::int64_t>;
    case TVM_IPU_UINT64: return std::is_same_v<U, std::uint64_t>;
    case TVM_IPU_FLOAT32: return std::is_same_v<U, float>;
    case TVM_IPU_FLOAT64: return std::is_same_v<U, double>;
  }
  return false;
}

}  // namespace detail

// A loaded image. Sessions keep what they need of it, so it may be destroyed before them.
class Image {
 public:
  // Maps the file at `path`; `flags` are TVM_IPU_VERIFY_WEIGHTS and TVM_IPU_SKIP_CPU_CHECK.
  explicit Image(const std::string& path, std::uint32_t flags = 0) {
    tvm_ipu_error error;
    detail::check(tvm_ipu_image_open_file(path.c_str(), flags, &image_, &error), error);
  }

  // Uses an image in memory, in place if it is aligned: it must then outlive this object and all sessions.
  explicit Image(Span<const std::byte> bytes, std::uint32_t flags = 0) {
    tvm_ipu_error error;
    detail::check(tvm_ipu_image_open_memory(bytes.data(), bytes.size(), flags, &image_, &error), error);
  }

  Image(Image&& other) noexcept : image_(std::exchange(other.image_, nullptr)) {}
  Image& operator=(Image&& other) noexcept {
    std::swap(image_, other.image_);
    return *this;
  }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  ~Image() { tvm_ipu_image_close(image_); }

  std::uint32_t plan_count() const noexcept { return tvm_ipu_image_plan_count(image_); }
  std::string_view target() const noexcept { return tvm_ipu_image_target(image_); }
  // Facts about the model, JSON.
  std::string_view metadata() const noexcept {
    std::size_t size = 0;
    const char* text = tvm_ipu_image_metadata(image_, &size);
    return {text, size};
  }
  tvm_ipu_image* get() const noexcept { return image_; }

 private:
  tvm_ipu_image* image_ = nullptr;
};

struct SessionOptions {
  std::uint32_t plan = 0;
  std::uint32_t threads = 1;
};

// Memory and threads to run one plan of an image. One thread at a time may use it.
class Session {
 public:
  explicit Session(const Image& image, const SessionOptions& options = {}) {
    tvm_ipu_error error;
    detail::check(tvm_ipu_session_create(image.get(), options.plan, options.threads, &session_, &error), error);
    plan_ = tvm_ipu_session_plan(session_);
  }

  Session(Session&& other) noexcept
      : session_(std::exchange(other.session_, nullptr)), plan_(std::exchange(other.plan_, nullptr)) {}
  Session& operator=(Session&& other) noexcept {
    std::swap(session_, other.session_);
    std::swap(plan_, other.plan_);
    return *this;
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { tvm_ipu_session_destroy(session_); }

  Span<const tvm_ipu_tensor> inputs() const noexcept { return {plan_->inputs, plan_->input_count}; }
  Span<const tvm_ipu_tensor> outputs() const noexcept { return {plan_->outputs, plan_->output_count}; }
  Span<const tvm_ipu_call> calls() const noexcept { return {plan_->calls, plan_->call_count}; }

  // The elements of input or output `index`, where they lie now. T must be the tensor's type.
  template <typename T>
  Span<T> input(std::uint32_t index) {
    const tvm_ipu_tensor& tensor = find<T>(inputs(), index, "input");
    return {static_cast<T*>(tvm_ipu_session_input(session_, index)), tensor.nbytes / sizeof(T)};
  }
  template <typename T>
  Span<const T> output(std::uint32_t index) const {
    const tvm_ipu_tensor& tensor = find<T>(outputs(), index, "output");
    return {static_cast<const T*>(tvm_ipu_session_output(session_, index)), tensor.nbytes / sizeof(T)};
  }

  // Lets the session use the caller's memory, aligned to TVM_IPU_ALIGNMENT, from the next run on. An empty span goes
  // back to the session's own memory.
  template <typename T>
  void bind_input(std::uint32_t index, Span<const T> data) {
    find<T>(inputs(), index, "input");
    tvm_ipu_error error;
    detail::check(
        tvm_ipu_session_bind_input(session_, index, data.data(), data.size() * sizeof(T), &error), error);
  }
  template <typename T>
  void bind_output(std::uint32_t index, Span<T> data) {
    find<T>(outputs(), index, "output");
    tvm_ipu_error error;
    detail::check(
        tvm_ipu_session_bind_output(session_, index, data.data(), data.size() * sizeof(T), &error), error);
  }

  void run() {
    tvm_ipu_error error;
    detail::check(tvm_ipu_session_run(session_, &error), error);
  }

  // Nanoseconds of each of `repeat` runs.
  std::vector<std::uint64_t> time_runs(std::uint32_t repeat) {
    std::vector<std::uint64_t> ns(repeat);
    tvm_ipu_error error;
    detail::check(tvm_ipu_session_time_runs(session_, repeat, ns.data(), &error), error);
    return ns;
  }

  // Nanoseconds of each call of one run, in the order of calls().
  std::vector<std::uint64_t> profile() {
    std::vector<std::uint64_t> ns(plan_->call_count);
    tvm_ipu_error error;
    detail::check(tvm_ipu_session_profile(session_, ns.data(), &error), error);
    return ns;
  }

  tvm_ipu_session* get() const noexcept { return session_; }

 private:
  template <typename T>
  static const tvm_ipu_tensor& find(Span<const tvm_ipu_tensor> tensors, std::uint32_t index, const char* kind) {
    if (index >= tensors.size()) {
      throw Error(TVM_IPU_ERROR_ARGUMENT, std::string("there is no ") + kind + " " + std::to_string(index));
    }
    if (!detail::holds<T>(tensors[index].dtype)) {
      throw Error(TVM_IPU_ERROR_ARGUMENT,
                  std::string(kind) + " '" + tensors[index].name + "' has elements of type " +
                      tvm_ipu_dtype_name(tensors[index].dtype));
    }
    return tensors[index];
  }

  tvm_ipu_session* session_ = nullptr;
  const tvm_ipu_plan* plan_ = nullptr;
};

}  // namespace tvm_ipu

#endif
