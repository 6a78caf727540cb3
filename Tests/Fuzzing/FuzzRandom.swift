/// Everything random about one input: its seed says all of it, so that any input can be made again.
package struct FuzzRandom: RandomNumberGenerator {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  /// SplitMix64 (Steele, Lea and Flood, 2014).
  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// A number below `limit`, quickly.
  mutating func below(_ limit: Int) -> Int { Int(truncatingIfNeeded: next() % UInt64(max(limit, 1))) }
  mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }
  mutating func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }
  mutating func bytes(_ counts: ClosedRange<Int>) -> [UInt8] {
    (0..<(counts.lowerBound + below(counts.count))).map { _ in UInt8(truncatingIfNeeded: next()) }
  }

  /// Text of any characters, those that are troublesome more often than others.
  mutating func text(_ counts: ClosedRange<Int>) -> String {
    let strange: [Unicode.Scalar] = [
      "\u{0}", "\r", "\n", "\"", "\\", "%", "é", "\u{301}", "\u{202E}", "😀", "\u{7F}", " ",
    ]
    var text = String.UnicodeScalarView()
    for _ in 0..<(counts.lowerBound + below(counts.count)) {
      text.append(oneIn(3) ? pick(strange) : Unicode.Scalar(UInt8(0x20 + below(0x5F))))
    }
    return String(text)
  }

  /// A valid input, changed in none to six places: bits, bytes, pieces moved, doubled or cut out, and words of its language put in.
  mutating func mutated(_ text: String, _ words: [String]) -> [UInt8] {
    var bytes = Array(text.utf8)
    for _ in 0..<below(7) {
      let at = below(bytes.count + 1)
      switch below(9) {
      case 0 where at < bytes.count: bytes[at] ^= 1 << UInt8(below(8))
      case 1 where at < bytes.count: bytes[at] = UInt8(truncatingIfNeeded: next())
      case 2 where at < bytes.count: bytes.removeSubrange(at..<min(bytes.count, at + 1 + below(6)))
      case 3: bytes.insert(pick(Self.troublesome), at: at)
      case 4 where at < bytes.count:
        let piece = bytes[at..<min(bytes.count, at + 1 + below(16))]
        bytes.insert(contentsOf: Array(piece), at: below(bytes.count))
      case 5: bytes.insert(contentsOf: pick(words).utf8, at: at)
      case 6: bytes.replaceSubrange(at..<min(bytes.count, at + below(8)), with: pick(words).utf8)
      case 7 where oneIn(20):
        bytes.insert(contentsOf: [UInt8](repeating: pick(Self.troublesome), count: below(5000)), at: at)
      case 8 where oneIn(4): bytes = Array(bytes[..<at])
      default: bytes.insert(UInt8(0x20 + below(0x5F)), at: at)
      }
    }
    return bytes
  }

  mutating func mutatedText(_ text: String, _ words: [String]) -> String {
    String(decoding: mutated(text, words), as: UTF8.self)
  }

  private static let troublesome: [UInt8] = [
    0, 0x09, 0x0A, 0x0D, 0x20, 0x22, 0x23, 0x25, 0x2C, 0x2E, 0x2F, 0x30, 0x39, 0x3A, 0x3D, 0x3F, 0x40, 0x5B, 0x5C, 0x5D,
    0x7F, 0x80,
    0xC0, 0xE2, 0xFF,
  ]
}
