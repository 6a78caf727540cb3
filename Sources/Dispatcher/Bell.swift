import Dispatch
import Synchronization

/// Wakes one waiting thread. Rings that nobody waits for are kept as one.
///
/// The deadline runs on the monotonic clock: a jump of the host's time neither wakes nor delays anybody.
final class Bell: Sendable {
  private let semaphore = DispatchSemaphore(value: 0)
  private let isRung = Atomic(false)

  func ring() {
    if !isRung.exchange(true, ordering: .acquiringAndReleasing) { semaphore.signal() }
  }

  /// Blocks until it rings, or `timeout` has passed.
  func wait(upTo timeout: Duration) {
    let nanoseconds = max(0, min(timeout / .nanoseconds(1), 1e18))
    if semaphore.wait(timeout: .now() + .nanoseconds(Int(nanoseconds))) == .success {
      isRung.store(false, ordering: .releasing)
    }
  }
}
