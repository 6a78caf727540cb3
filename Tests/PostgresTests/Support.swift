import EmbeddedPostgres
import Foundation
import Testing

@testable import Postgres

/// One server for all tests that do not stop it.
actor SharedServer {
  static let shared = SharedServer()
  private var start: Task<EmbeddedPostgres, any Error>?

  func get() async throws -> EmbeddedPostgres {
    // Unstructured, because all tests wait for the same start and none of them may cancel it for the others.
    let start = self.start ?? Task { try await EmbeddedPostgres.start() }
    self.start = start
    return try await start.value
  }

  static var url: String { get async throws { try await shared.get().connectionString } }
}

/// Runs the body on a connection of its own to the shared server.
@discardableResult
func withConnection<Value: Sendable>(_ body: @Sendable (Connection) throws -> Value) async throws -> Value {
  try await withConnection(to: SharedServer.url, body)
}

@discardableResult
func withConnection<Value: Sendable>(
  to url: String,
  statementTimeout: Duration = .seconds(60),
  requiresWritable: Bool = true,
  _ body: @Sendable (Connection) throws -> Value
) async throws -> Value {
  let configuration = ConnectionConfiguration(
    connectionString: url,
    applicationName: "postgres-tests",
    statementTimeout: statementTimeout,
    requiresWritable: requiresWritable
  )
  return try await Session(configuration).withConnection(body)
}

extension Connection {
  /// The first value of the first row as text.
  func value(_ sql: String, _ parameters: [Parameter] = []) throws -> String? {
    try queryText(sql, parameters).rows.first?.first ?? nil
  }
}

/// The error that the body throws.
func postgresError(_ body: () throws -> Void) throws -> PostgresError {
  try #require(#expect(throws: PostgresError.self) { try body() })
}

/// Why a connection to this address cannot be made.
func connectError(_ url: String) async throws -> PostgresError {
  try #require(
    await #expect(throws: PostgresError.self) {
      try await withConnection(to: url) { _ in }
    }
  )
}

struct DeadlinePassed: Error { var waitingFor: String }

/// Polls until the condition holds; throws after the deadline.
func eventually(
  _ what: String,
  within limit: Duration = .seconds(60),
  _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while try await !condition() {
    guard ContinuousClock.now < deadline else { throw DeadlinePassed(waitingFor: what) }
    try await Task.sleep(for: .milliseconds(5))
  }
}

/// How many backends run a statement like this, or are idle after it.
func backends(_ condition: String, _ parameters: [Parameter] = []) async throws -> Int {
  try await withConnection { connection in
    let rows = try connection.query(
      "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND \(condition)",
      parameters
    )
    return Int(try rows.required(rows.int64(0, 0), 0))
  }
}

/// Ends the backends that the condition names.
func terminate(_ condition: String, _ parameters: [Parameter] = []) async throws {
  try await withConnection { connection in
    _ = try connection.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND \(condition)",
      parameters
    )
  }
}

/// A name that no other test uses.
func uniqueName(_ prefix: String) -> String {
  prefix + "_" + UUID().uuidString.replacing("-", with: "").lowercased().prefix(12)
}
