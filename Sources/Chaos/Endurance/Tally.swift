import Foundation
import Rig
import Synchronization

/// What the publishers saw commit and what the receiver saw arrive, in memory that hardly grows: an event takes four bytes
/// and a bit, a delivery two bits.
///
/// Nothing else decides what was lost, phantom, out of order or repeated.
final class Tally: Recipient {
  /// More than any event's number: whoever sends one beyond made it up.
  static let numbersLimit = 1 << 26
  /// So many repetitions are remembered to be explained, and so many deliveries that faults caught.
  static let repetitionsLimit = 4_000_000
  static let caughtLimit = 16_000_000
  /// Arrivals remembered with their time, for what a crash takes back.
  static let recentLimit = 1 << 18

  /// Paths, in the order of the endpoints' places.
  static let paths = ["/plain", "/flaky", "/ordered"]
  static let ordered: Set<Int> = [2]
  /// Answered 500 by the second endpoint at all times, so that there are always some retries.
  private static let usualFailures = 0.001

  struct Endpoint: Sendable {
    var arrived = BitSet()
    var answered = BitSet()
    /// Of each key the newest event that has arrived, at an ordered endpoint.
    var newest: [Int: Int] = [:]
    var misordered = 0
  }

  struct State: Sendable {
    var endpoints = [Endpoint](repeating: Endpoint(), count: paths.count)
    var random: SeededGenerator
    var committed = BitSet()
    var rolledBack = 0
    var transactions = 0
    var lookedUp = 0
    /// Of the id under which an event first came; 0: none yet.
    var idDigests: [UInt32] = []
    var repetitions: [(code: UInt64, at: ContinuousClock.Instant)] = []
    /// All of them, though not all may be remembered.
    var repeated = 0
    var renamed = 0
    /// Without a valid signature, or without an event's number.
    var refused = 0
    var answeredCount = 0
    var recent: [(code: UInt64, at: ContinuousClock.Instant)] = []
    var nextRecent = 0
  }

  let state: Mutex<State>

  init(random: SeededGenerator) { state = Mutex(State(random: random)) }

  func receive(_ arrival: RawReceiver.Arrival, failing: Double?) -> RawReceiver.Verdict {
    let (number, place) = (arrival.pair.event, arrival.pair.endpoint)
    // FNV-1a: only to tell ids apart, of which two are equal by chance once in four thousand million.
    let digest = arrival.id.utf8.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 }
    return state.withLock { state in
      guard (0..<Self.numbersLimit).contains(number) else {
        state.refused += 1
        return .init(isAccepted: false)
      }
      state.note(arrival.pair.code, arrival.at)
      state.check(digest, of: number)
      state.endpoints[place].arrived.insert(number)
      let wasAnswered = state.endpoints[place].answered.contains(number)
      if Self.ordered.contains(place), let key = BulkPublisher.key(of: number) {
        state.endpoints[place].follow(number, key, wasAnswered: wasAnswered)
      }
      // What was answered 200 is not refused when it comes again: that would only make it come once more.
      if wasAnswered {
        state.repeated += 1
        if state.repetitions.count < Self.repetitionsLimit {
          state.repetitions.append((arrival.pair.code, arrival.at))
        }
        return .init(isAccepted: true)
      }
      let share = failing ?? (place == 1 ? Self.usualFailures : 0)
      guard share == 0 || !state.random.happens(share) else { return .init(isAccepted: false) }
      state.endpoints[place].answered.insert(number)
      state.answeredCount += 1
      return .init(isAccepted: true)
    }
  }

  func refuse() { state.withLock { $0.refused += 1 } }

  func note(_ batch: BulkPublisher.Batch) {
    state.withLock { state in
      state.transactions += 1
      if batch.wasLookedUp { state.lookedUp += 1 }
      let committed = batch.isCommitted ? batch.kept : 0
      for index in 0..<committed { state.committed.insert(batch.number(index)) }
      state.rolledBack += batch.count - committed
    }
  }

  var answeredCount: Int { state.withLock { $0.answeredCount } }
  var repeatedCount: Int { state.withLock { $0.repeated } }
  var committedCount: Int { state.withLock { $0.committed.count } }
  /// Deliveries that are committed and not answered yet.
  var backlog: Int { state.withLock { $0.committed.count * $0.endpoints.count - $0.answeredCount } }

  /// What arrived since then, as far back as is remembered.
  func arrived(since: ContinuousClock.Instant) -> Set<Pair> {
    state.withLock { state in Set(state.recent.lazy.filter { $0.at >= since }.map { Pair(code: $0.code) }) }
  }
}

extension Tally.Endpoint {
  /// Attempts of a key follow each other: each first one comes after the one before it was answered 200.
  fileprivate mutating func follow(_ number: Int, _ key: Int, wasAnswered: Bool) {
    let before = newest[key] ?? -1
    if number > before {
      if before >= 0, !answered.contains(before) { misordered += 1 }
      newest[key] = number
    } else if number < before, !wasAnswered {
      // A later one has been sent already, though this one was not yet answered.
      misordered += 1
    }
  }
}

extension Tally.State {
  fileprivate mutating func note(_ code: UInt64, _ now: ContinuousClock.Instant) {
    if recent.count < Tally.recentLimit {
      recent.append((code, now))
    } else {
      recent[nextRecent] = (code, now)
      nextRecent = (nextRecent + 1) % Tally.recentLimit
    }
  }

  fileprivate mutating func check(_ digest: UInt32, of number: Int) {
    if number >= idDigests.count {
      idDigests += [UInt32](repeating: 0, count: max(number + 1, 2 * idDigests.count) - idDigests.count)
    }
    if idDigests[number] == 0 { idDigests[number] = max(digest, 1) }
    if idDigests[number] != max(digest, 1) { renamed += 1 }
  }
}

extension Pair {
  /// In eight bytes; up to eight endpoints.
  var code: UInt64 { UInt64(event) << 3 | UInt64(endpoint) }
  init(code: UInt64) { self.init(event: Int(code >> 3), endpoint: Int(code & 7)) }
}
