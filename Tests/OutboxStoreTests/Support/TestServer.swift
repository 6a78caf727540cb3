import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres

/// The server that all tests of this process share, and a migrated database to copy. The server's keeper removes it when
/// the process ends.
actor TestServer {
  static let shared = TestServer()
  static let template = "martlet_template"

  /// No autovacuum: what a test counts must not change behind its back.
  static let settings = [
    "max_prepared_transactions": "20", "max_connections": "200", "autovacuum": "off", "shared_buffers": "512MB",
    "max_wal_size": "8GB", "checkpoint_timeout": "1h", "log_line_prefix": "%d|",
  ]

  private var starting: Task<EmbeddedPostgres, any Error>?
  private var databases = 0
  /// CREATE DATABASE locks its template: one at a time.
  private let maker = SerialQueue()

  func server() async throws -> EmbeddedPostgres {
    if let starting { return try await starting.value }
    // Unstructured, because every test waits for the same start.
    let task = Task { () async throws -> EmbeddedPostgres in
      let server = try await EmbeddedPostgres.start(.init(settings: Self.settings))
      try await Self.makeTemplate(on: server)
      return server
    }
    starting = task
    return try await task.value
  }

  static func makeTemplate(on server: EmbeddedPostgres) async throws {
    let url = try await server.createDatabase(template)
    let client = Client(url)
    try await client.migrate()
    await client.session.disconnect()
  }

  func makeDatabase() async throws -> Database {
    let server = try await server()
    databases += 1
    let name = "test_\(databases)"
    return try await maker.run { try await Database.make(name, on: server) }
  }
}

/// Runs one closure at a time, in order.
actor SerialQueue {
  private var last: Task<Void, Never>?

  func run<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
    let before = last
    let task = Task {
      await before?.value
      return try await body()
    }
    last = Task { _ = try? await task.value }  // Its error is the caller's; the next one only waits for the end.
    return try await task.value
  }
}
