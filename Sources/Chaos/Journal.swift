import Synchronization

/// What the publishers know: which events they committed, and which not.
final class Journal: Sendable {
  struct Event: Sendable {
    var number: Int
    /// The place among the committed events of its key, decided under a lock that was held until the commit.
    var place: (key: String, index: Int)?
  }

  struct State: Sendable {
    var committed: [Int: Event] = [:]
    var rolledBack: Set<Int> = []
    var transactions = 0
    /// Transactions whose COMMIT got no answer, and that were looked up in the application's own table.
    var lookedUp = 0
  }

  private let state = Mutex(State())
  private let number = Atomic(0)

  var snapshot: State { state.withLock { $0 } }
  var committedCount: Int { state.withLock { $0.committed.count } }

  func nextNumber() -> Int { number.add(1, ordering: .relaxed).newValue }

  func note(_ events: [Event], committed: Bool, undone: [Int] = [], lookedUp: Bool = false) {
    state.withLock { state in
      state.transactions += 1
      if lookedUp { state.lookedUp += 1 }
      state.rolledBack.formUnion(undone)
      if committed {
        for event in events { state.committed[event.number] = event }
      } else {
        state.rolledBack.formUnion(events.map(\.number))
      }
    }
  }
}
