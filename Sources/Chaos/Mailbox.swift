import Foundation
import Rig
import Synchronization

/// What arrived at all endpoints, and how it is answered. It knows nothing of the database.
final class Mailbox: Recipient {
  struct Arrival: Sendable {
    var pair: Pair
    var id: UUID
    var isAccepted: Bool
    var at: ContinuousClock.Instant
  }

  private struct State {
    var arrivals: [Arrival] = []
    var answered: Set<Pair> = []
    /// Without a valid signature, or without an event's number.
    var refused = 0
    var isCalm = false
    var random: SeededGenerator
  }

  /// Paths, in the order of the endpoints' places.
  static let paths = ["/plain", "/flaky", "/ordered", "/ordered-flaky"]
  static let ordered: Set<Int> = [2, 3]

  private let state: Mutex<State>

  init(random: SeededGenerator) { state = Mutex(State(random: random)) }

  var arrivals: [Arrival] { state.withLock { $0.arrivals } }
  var answeredCount: Int { state.withLock { $0.answered.count } }
  var refusedCount: Int { state.withLock { $0.refused } }
  /// No more faults of its own.
  func calmDown() { state.withLock { $0.isCalm = true } }
  func refuse() { state.withLock { $0.refused += 1 } }

  func arrived(since: ContinuousClock.Instant) -> Set<Pair> {
    state.withLock { state in Set(state.arrivals.reversed().prefix { $0.at >= since }.map(\.pair)) }
  }

  func receive(_ arrival: RawReceiver.Arrival, failing: Double?) -> RawReceiver.Verdict {
    state.withLock { state in
      guard let id = UUID(uuidString: arrival.id) else {
        state.refused += 1
        return .init(isAccepted: false)
      }
      let pair = arrival.pair
      let isFlaky = pair.endpoint % 2 == 1
      // What was answered 200 is not refused when it comes again: that would only make it come once more.
      let fails =
        !state.isCalm && isFlaky && !state.answered.contains(pair) && state.random.happens(failing ?? 0.05)
      let isSlow = isFlaky && state.random.happens(0.1)
      state.arrivals.append(Arrival(pair: pair, id: id, isAccepted: !fails, at: arrival.at))
      if !fails { state.answered.insert(pair) }
      let delay = isSlow ? Int.random(in: 20...150, using: &state.random) : 0
      return .init(isAccepted: !fails, delay: .milliseconds(delay))
    }
  }
}
