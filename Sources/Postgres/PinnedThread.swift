import Foundation

/// A thread that runs the jobs of one actor, in order. libpq's calls block; here they block nobody else.
package final class PinnedThread: SerialExecutor {
  private let queue = Queue()

  package init(name: String) {
    let queue = self.queue
    let thread = Thread {
      // Foundation's own name does not reach the kernel, which keeps 15 bytes. A thread without a name works as well.
      let file = URL(fileURLWithPath: "/proc/thread-self/comm")
      try? Data(name.utf8.prefix(15)).write(to: file)
      while let job = queue.next() { job() }
    }
    thread.stackSize = 1 << 20
    thread.start()
  }

  /// The thread ends once it has run what is waiting.
  deinit { queue.close() }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    // The job may release the last reference to its actor, and with it to us, while it is running.
    queue.append { [self] in job.runSynchronously(on: asUnownedSerialExecutor()) }
  }

  package func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

  /// Runs something that belongs to no task on the thread, after what is waiting.
  func afterwards(_ body: @escaping @Sendable () -> Void) { queue.append(body) }

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
