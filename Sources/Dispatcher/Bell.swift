import Foundation
import Synchronization

/// Wakes one waiting thread. Rings that nobody waits for are kept as one.
///
/// The deadline runs on the monotonic clock: a jump of the host's time neither wakes nor delays anybody. So this is not
/// a DispatchSemaphore: on Linux that waits until a time of day, for an hour if the clock is set back by one.
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

final class ThreadSleeper: Sleeper {
  private let isWoken = Atomic(false)
  private let condition = MonotonicCondition()

  func wake() {
    isWoken.store(true, ordering: .releasing)
    condition.signal()
  }

  func sleep(upTo timeout: Duration) -> Bool {
    var woken = false
    condition.wait(upTo: timeout) {
      woken = isWoken.exchange(false, ordering: .acquiringAndReleasing)
      return woken
    }
    return woken
  }
}

/// A condition variable whose deadlines no jump of the host's time moves.
///
/// @unchecked: the pointers never change, and what they point at is made to be shared by threads.
private final class MonotonicCondition: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    pthread_mutex_init(mutex, nil)
    #if canImport(Darwin)
      pthread_cond_init(condition, nil)
    #else
      var attributes = pthread_condattr_t()
      pthread_condattr_init(&attributes)
      let code = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
      precondition(code == 0, "a condition on the monotonic clock cannot be had")
      pthread_cond_init(condition, &attributes)
      pthread_condattr_destroy(&attributes)
    #endif
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  func signal() {
    pthread_mutex_lock(mutex)
    pthread_cond_signal(condition)
    pthread_mutex_unlock(mutex)
  }

  /// Blocks until `isDone`, which is asked first and after each signal, or `timeout` has passed.
  func wait(upTo timeout: Duration, isDone: () -> Bool) {
    let end = ContinuousClock.now + timeout
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while !isDone() {
      let left = end - .now
      guard left > .zero else { return }
      let seconds = min(left / .seconds(1), 1e9)
      var span = timespec(tv_sec: Int(seconds), tv_nsec: Int((seconds - seconds.rounded(.down)) * 1e9))
      #if canImport(Darwin)
        pthread_cond_timedwait_relative_np(condition, mutex, &span)
      #else
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        span.tv_sec += now.tv_sec + (span.tv_nsec + now.tv_nsec) / 1_000_000_000
        span.tv_nsec = (span.tv_nsec + now.tv_nsec) % 1_000_000_000
        pthread_cond_timedwait(condition, mutex, &span)
      #endif
    }
  }
}
