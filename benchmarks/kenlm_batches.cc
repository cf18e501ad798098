// KenLM's binaries of an ARPA file, and its look-ups a second on batches: a state and a word in, a score and a state out.
//
//   kenlm_batches build probing|trie MODEL.arpa MODEL.binary
//   kenlm_batches score probing|trie MODEL.binary WORDS TEXT QUERIES SCORES
//
// WORDS has a word a line; TEXT is int32 numbers of lines of WORDS, -1 begins a sentence; QUERIES is pairs of int32, a
// place in TEXT (whose state is that before the word there) and the number of a word. SCORES gets a float32 a query.
// It prints the nanoseconds of processor time of a query, best of three. benchmarks/lm_store.py compiles it beside KenLM's source.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "lm/model.hh"

template <class T> std::vector<T> Read(const char *name) {
  std::ifstream in(name, std::ios::binary | std::ios::ate);
  std::vector<T> found(static_cast<std::size_t>(in.tellg()) / sizeof(T));
  in.seekg(0);
  in.read(reinterpret_cast<char *>(found.data()), found.size() * sizeof(T));
  return found;
}

double Now() {  // nanoseconds of processor time
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec * 1e9 + now.tv_nsec;
}

template <class Model> int Build(char **argv) {
  lm::ngram::Config config;
  config.write_mmap = argv[4];
  config.show_progress = false;
  config.arpa_complain = lm::ngram::Config::NONE;
  Model model(argv[3], config);
  return 0;
}

template <class Model> int Score(char **argv) {
  lm::ngram::Config config;
  config.show_progress = false;
  Model model(argv[3], config);
  std::vector<lm::WordIndex> ids;
  std::ifstream words(argv[4]);
  for (std::string word; std::getline(words, word);) ids.push_back(model.GetVocabulary().Index(word));
  const std::vector<int32_t> text = Read<int32_t>(argv[5]);
  std::vector<lm::ngram::State> states(text.size());
  lm::ngram::State now = model.BeginSentenceState(), next;
  for (std::size_t place = 0; place < text.size(); ++place) {
    if (text[place] < 0) {
      states[place] = now = model.BeginSentenceState();
      continue;
    }
    states[place] = now;
    model.FullScore(now, ids[text[place]], next);
    now = next;
  }
  const std::vector<int32_t> queries = Read<int32_t>(argv[6]);
  const std::size_t count = queries.size() / 2;
  std::vector<float> scores(count);
  std::vector<lm::ngram::State> after(count);
  double best = 1e30;
  for (int time = 0; time < 3; ++time) {
    const double begun = Now();
    for (std::size_t query = 0; query < count; ++query)
      scores[query] = model.FullScore(states[queries[2 * query]], ids[queries[2 * query + 1]], after[query]).prob;
    best = std::min(best, (Now() - begun) / count);
  }
  std::ofstream(argv[7], std::ios::binary).write(reinterpret_cast<char *>(scores.data()), count * sizeof(float));
  std::cout << best << std::endl;
  return 0;
}

int main(int, char **argv) {
  const bool trie = std::string(argv[2]) == "trie";
  if (std::string(argv[1]) == "build") return trie ? Build<lm::ngram::TrieModel>(argv) : Build<lm::ngram::ProbingModel>(argv);
  return trie ? Score<lm::ngram::TrieModel>(argv) : Score<lm::ngram::ProbingModel>(argv);
}
