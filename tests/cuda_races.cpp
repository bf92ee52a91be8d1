// Every kernel once with blocks of eight threads, for the thread sanitizer to watch. Prints nothing of its own.

#include <random>

#include "cuda_on_cpu.cpp"

int main() {
  const int threads = 8, sets = 2, pixels_per_set = 20000, brightest = 205;
  std::mt19937 random(1);
  std::vector<u8> pixels(3 * pixels_per_set * sets);
  for (u8& level : pixels) level = random() % 200 + 20;
  // So many of one colour that a bin of one key ends the search.
  for (int i = 0; i < 3 * 9000; ++i) pixels[i] = 100 + i % 3;
  std::vector<double> od(256);
  std::vector<i64> densities(256);
  for (int level = 0; level < 256; ++level) {
    od[level] = -std::log((level + 1) / 240.0);
    densities[level] = level <= brightest ? (i64)(od[level] * (1 << 21)) : NOT_KEPT;
  }
  std::vector<i64> sums(sets * SUMS);
  launch_moments(1, sets, threads, pixels.data(), pixels_per_set, 65536, densities.data(), sums.data());
  const double axes[12] = {.6, .6, .5, -.5, .1, .7, .6, .6, .5, -.5, .1, .7};
  int ranks[2 * sets];
  for (int set = 0; set < sets; ++set) {
    const int kept = (int)sums[SUMS * set + 9];
    ranks[2 * set] = kept / 100;
    ranks[2 * set + 1] = kept - 1 - kept / 100;
  }
  double found[2 * sets];
  launch_pseudo_angles(sets, 1, threads, pixels.data(), pixels_per_set, od.data(), brightest, axes, ranks, found);
  launch_concentrations(sets, 1, threads, pixels.data(), pixels_per_set, od.data(), axes, ranks, found);
  const Constants constants = {1.4426950408889634, 0.6931471803691238, 1.9e-10, 40, 4e12, 240, {1, 1, 1, 1}};
  const double matrix[9] = {1, .1, .1, .1, 1, .1, .1, .1, 1};
  std::vector<float4> words(768);
  const int which[sets] = {0, -1};
  launch_tables(1, 1, threads, matrix, od.data(), &constants, words.data());
  launch_apply(3, sets, threads, pixels.data(), pixels_per_set, words.data(), which);
}
