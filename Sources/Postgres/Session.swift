/// A connection and the thread it lives on. Connects on first use and again whenever the connection was lost.
package actor Session {
  private let thread: PinnedThread
  private let configuration: ConnectionConfiguration
  private var connection: Connection?

  package nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  package init(_ configuration: ConnectionConfiguration, name: String = "postgres") {
    self.configuration = configuration
    self.thread = PinnedThread(name: name)
  }

  /// Runs `body` on the session's thread with a usable connection. `body` may run as long as it likes; cancelling the task
  /// cancels the statement it is waiting for.
  package func withConnection<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value {
    let connection = try connected()
    let canceller = connection.canceller
    return try await withTaskCancellationHandler {
      defer { if !connection.isUsable { self.connection = nil } }
      return try body(connection)
    } onCancel: {
      canceller()
    }
  }

  /// Runs `body` on the session's thread with a function that gives a usable connection each time it is called: for
  /// loops that outlive connections.
  package func run<Value: Sendable>(_ body: @Sendable (() throws(PostgresError) -> Connection) throws -> Value) throws
    -> Value
  {
    try body { () throws(PostgresError) in try self.connected() }
  }

  /// Closes the connection; the next use opens another.
  package func disconnect() { connection = nil }

  private func connected() throws(PostgresError) -> Connection {
    if let connection, connection.isUsable { return connection }
    connection = nil
    let fresh = try Connection(configuration)
    connection = fresh
    return fresh
  }
}
