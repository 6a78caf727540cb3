import Glibc

/// A thread for work that blocks, outside Swift's cooperative pool.
enum EngineThread {
  /// Runs `work` on a new thread that takes no signals: they belong to the host program's threads, and a SIGPIPE from
  /// writing to a closed connection must not end the process.
  static func start(_ work: @escaping @Sendable () -> Void) {
    var everySignal = sigset_t()
    var previous = sigset_t()
    sigfillset(&everySignal)
    // A new thread inherits the mask of its creator: set it here, or there would be a moment without it.
    pthread_sigmask(SIG_SETMASK, &everySignal, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }

    let context = Unmanaged.passRetained(Work(work)).toOpaque()
    var thread = pthread_t()
    let code = pthread_create(&thread, nil, run, context)
    precondition(code == 0, "EngineThread: no thread could be created: \(String(cString: strerror(code)))")
    pthread_detach(thread)
  }

  private final class Work: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  private static let run: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = { context in
    if let context { Unmanaged<Work>.fromOpaque(context).takeRetainedValue().run() }
    return nil
  }
}
