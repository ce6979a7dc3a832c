// Runs an image and lists the ten layers that take the most time.
//
//   python -m tvm_ipu.runtime.build build/native
//   c++ -std=c++17 -I tvm_ipu/runtime/native examples/cpp/profile.cpp build/native/libtvm_ipu.a -pthread -o profile
//   ./profile resnet50.img 2
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include "tvm_ipu.hpp"

namespace {

constexpr std::size_t kShown = 10;

double microseconds(std::uint64_t ns) { return static_cast<double>(ns) / 1e3; }

void print_slowest(tvm_ipu::Session& session) {
  const std::vector<std::uint64_t> ns = session.profile();
  const double total = microseconds(std::accumulate(ns.begin(), ns.end(), std::uint64_t{0}));
  std::vector<std::size_t> order(ns.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return ns[a] > ns[b]; });
  order.resize(std::min(order.size(), kShown));
  for (std::size_t i : order) {
    const tvm_ipu_call& call = session.calls()[i];
    std::printf("%9.1f us %5.1f%%  %-12s %s\n", microseconds(ns[i]), 100 * microseconds(ns[i]) / total, call.op,
                call.layer);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: profile IMAGE [THREADS]\n");
    return 1;
  }
  try {
    const tvm_ipu::Image image(argv[1]);
    tvm_ipu::Session session(image, {0, argc > 2 ? static_cast<std::uint32_t>(std::stoul(argv[2])) : 1});
    session.run();  // the first run touches the weights
    const std::vector<std::uint64_t> runs = session.time_runs(10);
    std::printf("fastest of ten runs: %.3f ms\n", microseconds(*std::min_element(runs.begin(), runs.end())) / 1e3);
    print_slowest(session);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
