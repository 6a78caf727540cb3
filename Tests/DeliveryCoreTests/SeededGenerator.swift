import Testing

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

/// Runs a property with fresh seeds. A failure shows its seed; put it into `seeds` to see it again.
func forSeeds(
  _ seeds: [UInt64] = (0..<40).map { _ in .random(in: 0...UInt64.max) },
  _ property: (inout SeededGenerator, Comment) throws -> Void
) rethrows {
  for seed in seeds {
    var random = SeededGenerator(seed: seed)
    try property(&random, "seed \(seed)")
  }
}
