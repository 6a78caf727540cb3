import Foundation

/// A thread that runs the jobs of one actor, in order. libpq's calls block; here they block nobody else.
package final class PinnedThread: SerialExecutor {
  private let queue = Queue()

  package init(name: String) {
    let queue = self.queue
    let thread = Thread {
      while let job = queue.next() { job() }
    }
    thread.name = name
    thread.stackSize = 1 << 20
    thread.start()
  }

  deinit { queue.close() }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    // The executor outlives its jobs: an actor that is running holds it.
    queue.append { [unowned self] in job.runSynchronously(on: self.asUnownedSerialExecutor()) }
  }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  // @unchecked: `jobs` and `closed` are only touched while `condition` is locked.
  private final class Queue: @unchecked Sendable {
    private let condition = NSCondition()
    private var jobs: [() -> Void] = []
    private var closed = false

    func append(_ job: @escaping () -> Void) {
      condition.withLock { jobs.append(job) }
      condition.signal()
    }

    func close() {
      condition.withLock { closed = true }
      condition.signal()
    }

    /// Blocks until there is a job; nil once closed and empty.
    func next() -> (() -> Void)? {
      condition.withLock {
        while jobs.isEmpty && !closed { condition.wait() }
        return jobs.isEmpty ? nil : jobs.removeFirst()
      }
    }
  }
}
