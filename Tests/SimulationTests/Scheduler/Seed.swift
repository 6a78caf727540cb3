/// SplitMix64: the same numbers for the same seed, everywhere.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Chance, with words for it. Cheaper in a debug build than the standard library's.
final class Chance {
  private var generator: SeededGenerator
  init(_ seed: UInt64) { generator = SeededGenerator(seed) }

  func bits() -> UInt64 { generator.next() }
  /// 0..<bound
  func below(_ bound: Int) -> Int { bound <= 1 ? 0 : Int(truncatingIfNeeded: generator.next() >> 1) % bound }
  func between(_ low: Int, _ high: Int) -> Int { low + below(high - low + 1) }
  func oneIn(_ many: Int) -> Bool { below(many) == 0 }
  func permille(_ share: Int) -> Bool { below(1000) < share }
  func unit() -> Double { Double(generator.next() >> 11) / Double(1 << 53) }
  func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }
}
