// The host of a kernel on `cuda_on_cpu.h`: rows from standard input, answers to standard output.
//
// In: int64[16] as `Header` says, then starts, constants, weights (float32), a head of four words
// for each row, the words of each row. Out: for each row the pieces of its answer's slot as they are
// once the row is taken; then the words of all slots of the mailbox.

struct Header {
  long long blocks, threads, shared_bytes, slots, pieces, row_pieces, rows, ahead, seed, starts,
      constants, weights, stop_within, spare[3];
};

template <class T> std::vector<T> input(size_t count) {
  std::vector<T> values(count);
  if (count && std::fread(values.data(), sizeof(T), count, stdin) != count) std::exit(9);
  return values;
}

int main() {
  const Header h = input<Header>(1)[0];
  const std::vector<float> starts = input<float>(h.starts), constants = input<float>(h.constants);
  const std::vector<float> weights = input<float>(h.weights);
  const std::vector<word> heads = input<word>(4 * h.rows);
  const std::vector<word> rows = input<word>(4 * h.row_pieces * h.rows);
  std::vector<float> far(h.starts, NAN);
  const long slot_words = 4 * (h.row_pieces + 1);
  std::vector<word> mail(h.slots * slot_words, EMPTY), answers(h.slots * h.pieces * 4, EMPTY);
  std::vector<word> out;
  word stop = 0;
  unsigned long long taken = 0;
  Arguments a = {};
  a.rows = (uint4 *)mail.data(); a.answers = (uint4 *)answers.data();
  a.stop = &stop; a.taken = &taken; a.far = far.data(); a.starts = starts.data();
  a.constants = constants.data(); a.weights = weights.data();
  a.mask = h.slots - 1; a.slot_pieces = h.row_pieces + 1; a.answer_pieces = h.pieces;
  a.head_piece = 0; a.row_piece = 1;

  std::mt19937 chance(h.seed + 1);
  std::vector<std::pair<word *, word>> words;  // of the row that is being written
  long sent = 0, seen = 0, rounds = 0;
  auto host = [&] {
    for (; seen < (long)taken; seen++, rounds = 0) {  // before its slot is used again
      word *from = &answers[(heads[4 * seen] & a.mask) * h.pieces * 4];
      out.insert(out.end(), from, from + h.pieces * 4);
      std::fill(from, from + h.pieces * 4, EMPTY);
    }
    // The last row of those that a stop meets comes when the kernel waits for it.
    const bool early = h.stop_within && sent == h.rows - 1 && rounds < 3000;
    if (words.empty() && sent < h.rows && sent - (long)taken < h.ahead && !early) {
      word *slot = &mail[(sent & a.mask) * slot_words];
      for (int i = 0; i < 4; i++) words.push_back({slot + i, heads[4 * sent + i]});
      for (long i = 0; i < 4 * h.row_pieces; i++)
        words.push_back({slot + 4 + i, rows[4 * h.row_pieces * sent + i]});
      std::shuffle(words.begin(), words.end(), chance);  // each word may be the last
      sent++;
    }
    for (int some = chance() % 64; some && !words.empty(); some--) {
      *words.back().first = words.back().second;
      words.pop_back();
    }
    if (seen == h.rows || (h.stop_within && sent == h.rows && words.size() < h.stop_within)) stop = 1;
    if (++rounds > 100000) {
      std::fprintf(stderr, "row %ld is not taken\n", seen);
      std::exit(3);
    }
  };
  const int code = gpu::run(h.blocks, h.threads, h.shared_bytes, h.seed, [&] { resident(a); }, host);
  out.insert(out.end(), mail.begin(), mail.end());
  std::fwrite(out.data(), 4, out.size(), stdout);
  return code;
}
