import Foundation
import Synchronization

/// What the publishers saw commit and what the receiver saw arrive, in memory that hardly grows: an event takes four bytes
/// and a bit, a delivery two bits.
///
/// Nothing else decides what was lost, phantom, out of order or repeated.
final class Tally: Sendable {
  /// More than any event's number: whoever sends one beyond made it up.
  static let numbersLimit = 1 << 26
  /// So many repetitions are remembered to be explained, and so many deliveries that faults caught.
  static let repetitionsLimit = 4_000_000
  static let caughtLimit = 16_000_000
  /// Arrivals remembered with their time, for what a crash takes back.
  static let recentLimit = 1 << 18

  struct Endpoint: Sendable {
    var arrived = BitSet()
    var answered = BitSet()
    /// Of each key the newest event that has arrived, at an ordered endpoint.
    var newest: [Int: Int] = [:]
    var misordered = 0
  }

  struct State: Sendable {
    var endpoints: [Endpoint]
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
  private let ordered: Set<Int>

  init(endpoints: Int, ordered: Set<Int>) {
    state = Mutex(State(endpoints: .init(repeating: Endpoint(), count: endpoints)))
    self.ordered = ordered
  }

  /// An arrival, told before its answer is sent, in the order of the answers.
  /// - Parameter isAccepted: answered 200. What was answered so before is accepted again, whatever the caller wanted.
  /// - Returns: whether to answer 200.
  func arrive(_ number: Int, at place: Int, digest: UInt32, isAccepted: Bool, now: ContinuousClock.Instant) -> Bool {
    state.withLock { state in
      guard (0..<Self.numbersLimit).contains(number) else {
        state.refused += 1
        return false
      }
      state.note(Pair(event: number, endpoint: place).code, now)
      state.check(digest, of: number)
      state.endpoints[place].arrived.insert(number)
      let wasAnswered = state.endpoints[place].answered.contains(number)
      if ordered.contains(place), let key = BulkPublisher.key(of: number) {
        state.endpoints[place].follow(number, key, wasAnswered: wasAnswered)
      }
      if wasAnswered {
        state.repeated += 1
        if state.repetitions.count < Self.repetitionsLimit {
          state.repetitions.append((Pair(event: number, endpoint: place).code, now))
        }
        return true
      }
      if isAccepted {
        state.endpoints[place].answered.insert(number)
        state.answeredCount += 1
      }
      return isAccepted
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
