import Foundation

extension EmbeddedPostgres {
  /// Stops the server and keeps data and port for `resume()`. Does nothing if it is not running.
  package func halt(_ mode: StopMode = .fast, within limit: Duration = .seconds(60)) async throws {
    guard let child = postmaster.withLock({ $0 }) else { return }
    child.signal(mode.signal)
    guard try await child.waitForExit(within: limit) != nil else {
      throw EmbeddedPostgresError.stopTimedOut(mode, after: limit)
    }
    forget(child)
  }

  /// Starts the server on the same port and data again, and returns once it accepts connections.
  package func resume() async throws {
    if pid != nil { return }
    let log = try Log(logFile)
    let child = try tools.spawnAsOwner(
      prefix + [binaries.postgres, "-D", dataDirectory.path],
      output: logFile,
      announcing: keeper
    )
    postmaster.withLock { $0 = child }
    do {
      try await waitUntilReady(child, log)
    } catch {
      // Unstructured, because after a cancellation this must still happen. A failure to kill is left to the keeper.
      await Task { try? await kill() }.value
      throw error
    }
  }

  package func restart(_ mode: StopMode = .fast) async throws {
    try await halt(mode)
    try await resume()
  }

  /// Kills the postmaster and all its backends with SIGKILL and returns when all of them are gone.
  ///
  /// Backends notice a dead postmaster by themselves only when they next wait, so a busy one would go on writing.
  package func kill() async throws {
    guard let child = postmaster.withLock({ $0 }) else { return }
    let limit = Duration.seconds(30)
    let deadline = ContinuousClock.now + limit
    func poll(until condition: () -> Bool) async throws {
      while !condition() {
        guard ContinuousClock.now < deadline else { throw EmbeddedPostgresError.stopTimedOut(nil, after: limit) }
        try await Task.sleep(for: .milliseconds(1))
      }
    }
    // A postmaster that stands still neither forks nor reaps: the list is complete, and no process id in it is reused.
    child.signal(SIGSTOP)
    try await poll { child.exitStatus() != nil || ProcessTable.standsStill(child.pid) }
    let backends = ProcessTable.children(of: child.pid)
    for backend in backends { _ = Foundation.kill(backend, SIGKILL) }
    child.signal(SIGKILL)
    try await poll { child.exitStatus() != nil && !backends.contains(where: ProcessTable.isRunning) }
    forget(child)
  }

  /// Ends the server with a fast shutdown (with SIGKILL if that takes too long) and removes its directory.
  package func stop() async throws {
    // Unstructured, because cleaning up must not be cut short when the caller has been cancelled.
    try await Task {
      do { try await halt(.fast, within: .seconds(20)) } catch EmbeddedPostgresError.stopTimedOut { try await kill() }
      await keeper.finish()
    }.value
  }

  private func waitUntilReady(_ child: ChildProcess, _ log: Log) async throws {
    let status = PostmasterStatus(dataDirectory: dataDirectory)
    let deadline = ContinuousClock.now + startTimeout
    while !status.isReady(pid: child.pid) {
      if let exit = child.exitStatus() {
        let tail = log.tail()
        throw tail.contains("could not create any TCP/IP sockets")
          ? EmbeddedPostgresError.portTaken(port, log: tail) : .startFailed(exit, log: tail)
      }
      guard ContinuousClock.now < deadline else {
        throw EmbeddedPostgresError.startTimedOut(after: startTimeout, log: log.tail())
      }
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  private func forget(_ child: ChildProcess) {
    keeper.watch(nil)
    postmaster.withLock { if $0 === child { $0 = nil } }
  }
}
