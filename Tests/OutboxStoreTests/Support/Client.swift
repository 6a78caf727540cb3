import Foundation
import OutboxStore
import Postgres

/// One session of a test, on a thread of its own, so that a statement may block without blocking the others.
struct Client: Sendable {
  let session: OpenSession

  init(_ url: String, setUp: [String] = []) {
    session = OpenSession(ConnectionConfiguration(connectionString: url, applicationName: "test", setUp: setUp))
  }

  func execute(_ sql: String) async throws {
    try await session.withConnection { try $0.execute(sql) }
  }

  /// Every value as text.
  func rows(_ sql: String, _ parameters: [Parameter] = []) async throws -> [[String?]] {
    try await session.withConnection { try $0.queryText(sql, parameters).rows }
  }

  /// The first value of the first row.
  func value(_ sql: String, _ parameters: [Parameter] = []) async throws -> String? {
    try await rows(sql, parameters).first?.first ?? nil
  }

  func int(_ sql: String) async throws -> Int {
    guard let text = try await value(sql), let int = Int(text) else { throw Unexpected("no integer: \(sql)") }
    return int
  }

  /// The first column of every row.
  func column(_ sql: String, _ parameters: [Parameter] = []) async throws -> [String] {
    try await rows(sql, parameters).map { $0[0] ?? "NULL" }
  }

  func store<Value: Sendable>(_ body: @Sendable (OutboxStore) throws -> Value) async throws -> Value {
    try await session.withConnection { try body(OutboxStore($0)) }
  }

  /// The error that the server answers with.
  func refusal(_ sql: String, _ parameters: [Parameter] = []) async throws -> PostgresError {
    do {
      _ = try await rows(sql, parameters)
    } catch let error as PostgresError {
      return error
    }
    throw Unexpected("was not refused: \(sql)")
  }

  func migrate() async throws {
    try await session.withConnection { _ = try Migrator($0).migrate() }
  }

  func pid() async throws -> Int { try await int("SELECT pg_backend_pid()") }

  /// Becomes another role for the rest of the session, without the right to come back.
  func becomes(_ role: String) async throws { try await execute("SET SESSION AUTHORIZATION \(role)") }
}

/// Unlike Session, keeps its connection whatever state it is left in: these tests leave transactions open on purpose.
actor OpenSession {
  private let thread = PinnedThread(name: "test")
  private let configuration: ConnectionConfiguration
  private var connection: Connection?

  nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

  init(_ configuration: ConnectionConfiguration) { self.configuration = configuration }

  func disconnect() { connection = nil }

  func withConnection<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) throws -> Value {
    if connection?.isUsable != true { connection = try Connection(configuration) }
    return try body(connection!)
  }
}

struct Unexpected: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// Polls until the condition holds; throws after the deadline.
func eventually(
  _ what: String,
  within limit: Duration = .seconds(60),
  _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !condition() {
    guard ContinuousClock.now < deadline else { throw Unexpected("waited in vain for: \(what)") }
    try await Task.sleep(for: .milliseconds(5))
  }
}

extension Database {
  /// Waits until that session waits for a lock.
  func untilBlocked(_ pid: Int) async throws {
    let watcher = client()
    try await eventually("session \(pid) to wait for a lock") {
      try await watcher.value("SELECT wait_event_type FROM pg_stat_activity WHERE pid = \(pid)") == "Lock"
    }
  }
}
