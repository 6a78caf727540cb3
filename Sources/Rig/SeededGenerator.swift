/// SplitMix64 (Steele, Lea and Flood, 2014): the same seed gives the same faults and the same rollbacks.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  /// `stream` tells apart those who draw from the same seed at once.
  package init(seed: UInt64, stream: Int) {
    state = seed &+ UInt64(truncatingIfNeeded: stream) &* 0xD1B5_4A32_D192_ED03
  }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// True in this share of all calls, 0 to 1.
  package mutating func happens(_ share: Double) -> Bool { Double.random(in: 0..<1, using: &self) < share }
}
