// api IMAGE: the C++ header on the sample image of image_kit.py: y = 2 (x + i), z = y reversed, n = 1000.
#include <algorithm>
#include <iostream>
#include <utility>

#include "check.h"
#include "tvm_ipu.hpp"

namespace {

template <typename Body>
tvm_ipu_status status_of(Body body) {
  try {
    body();
  } catch (const tvm_ipu::Error& error) {
    CHECK(error.what()[0] != 0);
    return error.status();
  }
  return TVM_IPU_OK;
}

void check_output(const tvm_ipu::Session& session, float first) {
  auto y = session.output<float>(0);
  auto z = session.output<float>(1);
  CHECK(y.size() == 1000 && !y.empty());
  for (std::size_t i = 0; i < y.size(); i++) {
    CHECK(y[i] == 2 * (first + static_cast<float>(i)) && z[999 - i] == y[i]);
  }
}

void test_binding(tvm_ipu::Session& session) {
  alignas(TVM_IPU_ALIGNMENT) static float x[1000], y[1001];
  std::fill(std::begin(x), std::end(x), 5.0f);
  session.bind_input<float>(0, {x, 1000});
  session.bind_output<float>(0, {y, 1000});
  session.run();
  check_output(session, 5);
  CHECK(session.output<float>(0).data() == y);
  CHECK(status_of([&] { session.bind_output<float>(0, {y + 1, 1000}); }) == TVM_IPU_ERROR_ARGUMENT);
  session.bind_input<float>(0, {});
  session.bind_output<float>(0, {});
  CHECK(session.output<float>(0).data() != y);
}

tvm_ipu::Session open_session(const char* path) {
  tvm_ipu::Image image(path, TVM_IPU_VERIFY_WEIGHTS);
  CHECK(image.plan_count() == 2 && image.target() == "test-host" && image.metadata().front() == '{');
  tvm_ipu::Image moved = std::move(image);
  return tvm_ipu::Session(moved, {0, 2});  // outlives the image object
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  tvm_ipu::Session session = open_session(argv[1]);
  CHECK(session.inputs().size() == 1 && std::string_view(session.outputs()[1].name) == "z");
  auto x = session.input<float>(0);
  std::fill(x.begin(), x.end(), 3.0f);
  session.run();
  check_output(session, 3);
  test_binding(session);
  CHECK(session.time_runs(5).size() == 5 && session.profile().size() == session.calls().size());
  CHECK(status_of([&] { session.input<double>(0); }) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(status_of([&] { session.output<float>(2); }) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(status_of([] { tvm_ipu::Image("/nonexistent"); }) == TVM_IPU_ERROR_IO);
  CHECK(status_of([&] { tvm_ipu::Session(tvm_ipu::Image(argv[1]), {9, 1}); }) == TVM_IPU_ERROR_ARGUMENT);

  std::size_t size;
  std::uint8_t* bytes = read_file(argv[1], &size);
  {
    tvm_ipu::Session other(tvm_ipu::Image({reinterpret_cast<const std::byte*>(bytes), size}));
    std::swap(session, other);
    session.run();
    check_output(session, 0);
    session = std::move(other);
  }
  std::free(bytes);
  std::cout << "ok\n";
}
