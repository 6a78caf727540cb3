import Synchronization

/// What the application saw commit and roll back.
final class Ledger: Sendable {
  private struct State {
    var committed: Set<Int> = []
    var rolledBack: Set<Int> = []
    var isStopped = false
  }
  private let state = Mutex(State())

  var committed: Set<Int> { state.withLock { $0.committed } }
  var rolledBack: Set<Int> { state.withLock { $0.rolledBack } }
  var isStopped: Bool { state.withLock { $0.isStopped } }
  func stop() { state.withLock { $0.isStopped = true } }
  func note(_ events: [Int], rolledBack: Bool) {
    state.withLock { state in
      if rolledBack { state.rolledBack.formUnion(events) } else { state.committed.formUnion(events) }
    }
  }
}

/// Sebastiano Vigna's SplitMix64: a seed decides everything.
struct SplitMix64: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
