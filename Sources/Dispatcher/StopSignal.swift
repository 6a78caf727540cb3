import Synchronization

/// Tells a thread to stop; later, to stop whatever it is in the middle of.
final class StopSignal: Sendable {
  private let raised = Atomic(false)
  private let overdue = Atomic(false)

  var isSet: Bool { raised.load(ordering: .acquiring) }
  var isOverdue: Bool { overdue.load(ordering: .acquiring) }
  func raise() { raised.store(true, ordering: .releasing) }
  /// The grace period is over.
  func insist() {
    raise()
    overdue.store(true, ordering: .releasing)
  }
}
