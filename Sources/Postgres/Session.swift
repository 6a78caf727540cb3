/// A connection and the thread it lives on. Connects on first use and again whenever the connection was lost.
package actor Session {
  private let thread: PinnedThread
  private let configuration: ConnectionConfiguration
  private let slot = Slot()

  package nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  package init(_ configuration: ConnectionConfiguration, name: String = "postgres") {
    self.configuration = configuration
    self.thread = PinnedThread(name: name)
  }

  // Saying goodbye to the server can block, and whoever drops a session may be on a shared thread.
  deinit { thread.afterwards { [slot] in slot.connection = nil } }

  /// Runs `body` on the session's thread with a usable connection. `body` may run as long as it likes.
  ///
  /// Cancelling the task cancels the statement that `body` is waiting for and refuses further ones, except for the
  /// rollback of a transaction; if `body` passes the error on, CancellationError is thrown. While the session is still
  /// connecting, a cancellation takes effect once that has come to an end. A connection on which something was cancelled,
  /// or which `body` leaves in a transaction, is not used again.
  package func withConnection<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value {
    try Task.checkCancellation()
    let connection = try connected()
    let canceller = connection.canceller
    // After the handler is gone: until then a cancellation may still come.
    defer { keepOnlyIfClean() }
    return try await withTaskCancellationHandler {
      // A closure that did not mention self would run on the shared threads.
      try self.perform(body, on: connection)
    } onCancel: {
      canceller.refuse()
    }
  }

  /// Runs `body` on the session's thread with a function that gives a usable connection each time it is called: for
  /// loops that outlive connections. Cancelling the task interrupts nothing; the loop decides for itself when to end.
  package func run<Value: Sendable>(_ body: @Sendable (() throws(PostgresError) -> Connection) throws -> Value) throws
    -> Value
  {
    defer { keepOnlyIfClean() }
    return try body { () throws(PostgresError) in try self.connected() }
  }

  /// Closes the connection; the next use opens another.
  package func disconnect() { slot.connection = nil }

  private func connected() throws(PostgresError) -> Connection {
    if let connection = slot.connection, connection.isAlive() { return connection }
    slot.connection = nil
    let fresh = try Connection(configuration)
    slot.connection = fresh
    return fresh
  }

  private func perform<Value>(_ body: (Connection) throws -> Value, on connection: Connection) throws -> Value {
    try Task.checkCancellation()
    do {
      return try body(connection)
    } catch let error as PostgresError where error.sqlState == "57014" && Task.isCancelled {
      throw CancellationError()
    }
  }

  private func keepOnlyIfClean() {
    guard let connection = slot.connection else { return }
    if !connection.isUsable || connection.isInTransaction || connection.canceller.isRefusing { slot.connection = nil }
  }

  // @unchecked: `connection` is only touched on the session's thread, by the actor's methods and by what deinit leaves.
  private final class Slot: @unchecked Sendable {
    var connection: Connection?
  }
}
