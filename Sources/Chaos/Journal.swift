import Synchronization

/// What the publishers know: which events they committed, and which not.
final class Journal: Sendable {
  struct Event: Codable, Sendable {
    var number: Int
    var place: Place?
  }

  /// Among the committed events of a key, decided under a lock that was held until the commit.
  struct Place: Codable, Sendable {
    var key: String
    var index: Int
  }

  /// What a publisher's process tells of a transaction.
  struct Transaction: Codable, Sendable {
    var events: [Event] = []
    /// Rolled back to a savepoint.
    var undone: [Int] = []
    var isCommitted = false
    /// COMMIT got no answer, and what became of it was looked up in the application's own table.
    var wasLookedUp = false
  }

  struct State: Sendable {
    var committed: [Int: Event] = [:]
    var rolledBack: Set<Int> = []
    var lookedUp = 0
  }

  private let state = Mutex(State())

  var snapshot: State { state.withLock { $0 } }
  var committedCount: Int { state.withLock { $0.committed.count } }

  func note(_ transaction: Transaction) {
    state.withLock { state in
      if transaction.wasLookedUp { state.lookedUp += 1 }
      state.rolledBack.formUnion(transaction.undone)
      if transaction.isCommitted {
        for event in transaction.events { state.committed[event.number] = event }
      } else {
        state.rolledBack.formUnion(transaction.events.map(\.number))
      }
    }
  }
}
