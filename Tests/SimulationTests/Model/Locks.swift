/// An advisory lock of PostgreSQL: shared or exclusive, waited for or tried, held to the end of the transaction.
final class AdvisoryLock {
  private let scheduler: Scheduler?
  private(set) var shared = 0
  private(set) var isExclusive = false
  private var waiters: [Waiter] = []

  init(_ scheduler: Scheduler?) { self.scheduler = scheduler }

  func tryExclusive() -> Bool {
    guard shared == 0, !isExclusive else { return false }
    isExclusive = true
    return true
  }

  func tryShared() -> Bool {
    guard !isExclusive else { return false }
    shared += 1
    return true
  }

  func release(exclusive: Bool) {
    if exclusive { isExclusive = false } else { shared -= 1 }
    wakeAll()
  }

  /// The server is gone, and the lock with it: who waits finds out.
  func abandon() { wakeAll() }

  private func wakeAll() {
    let woken = waiters
    waiters = []
    for waiter in woken { waiter.signal() }
  }

  /// Blocks until something about the lock has changed.
  func wait() {
    guard let scheduler else { preconditionFailure("nobody could release the lock") }
    let waiter = Waiter(scheduler)
    waiters.append(waiter)
    _ = waiter.wait(upTo: nil)
  }
}
