import Dispatch
import Synchronization

/// Wakes one waiting thread. Rings that nobody waits for are kept as one.
///
/// The deadline runs on the monotonic clock: a jump of the host's time neither wakes nor delays anybody.
final class Bell: Sendable {
  private let sleeper: any Sleeper
  private let isRung = Atomic(false)

  init(_ sleeper: any Sleeper = ThreadSleeper()) { self.sleeper = sleeper }

  func ring() {
    if !isRung.exchange(true, ordering: .acquiringAndReleasing) { sleeper.wake() }
  }

  /// Blocks until it rings, or `timeout` has passed.
  func wait(upTo timeout: Duration) {
    if sleeper.sleep(upTo: timeout) { isRung.store(false, ordering: .releasing) }
  }
}

/// One thread that sleeps, and those that wake it: a semaphore of which a simulation has another idea.
protocol Sleeper: Sendable {
  func wake()
  /// Returns whether it was woken, be it before it went to sleep.
  func sleep(upTo timeout: Duration) -> Bool
}

struct ThreadSleeper: Sleeper {
  private let semaphore = DispatchSemaphore(value: 0)

  func wake() { semaphore.signal() }

  func sleep(upTo timeout: Duration) -> Bool {
    let nanoseconds = max(0, min(timeout / .nanoseconds(1), 1e18))
    return semaphore.wait(timeout: .now() + .nanoseconds(Int(nanoseconds))) == .success
  }
}
