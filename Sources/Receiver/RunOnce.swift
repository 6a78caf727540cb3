import Synchronization

/// Lets the first caller through, and nobody after.
final class RunOnce: Sendable {
  private let hasStarted = Atomic(false)

  func start() -> Bool {
    hasStarted.compareExchange(expected: false, desired: true, ordering: .relaxed).exchanged
  }
}
