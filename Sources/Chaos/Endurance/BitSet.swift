/// A growing set of small numbers, a bit each.
struct BitSet: Sendable {
  private var words: [UInt64] = []
  private(set) var count = 0

  func contains(_ number: Int) -> Bool {
    let word = number >> 6
    return word < words.count && words[word] >> UInt64(number & 63) & 1 == 1
  }

  /// Returns false if it was there already.
  @discardableResult
  mutating func insert(_ number: Int) -> Bool {
    let (word, bit) = (number >> 6, UInt64(1) << UInt64(number & 63))
    // Twice as many at a time, so that growth costs nothing in the long run.
    if word >= words.count { words += [UInt64](repeating: 0, count: max(word + 1, 2 * words.count) - words.count) }
    guard words[word] & bit == 0 else { return false }
    words[word] |= bit
    count += 1
    return true
  }

  /// How many of these are not in the other, and the first of them.
  func subtracting(_ other: BitSet, naming limit: Int) -> (count: Int, first: [Int]) {
    var result = (count: 0, first: [Int]())
    for (index, word) in words.enumerated() {
      var rest = word & ~(index < other.words.count ? other.words[index] : 0)
      result.count += rest.nonzeroBitCount
      while rest != 0, result.first.count < limit {
        result.first.append(index << 6 | rest.trailingZeroBitCount)
        rest &= rest - 1
      }
    }
    return result
  }
}
