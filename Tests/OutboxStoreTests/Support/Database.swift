import EmbeddedPostgres
import Foundation
import OutboxStore
import Postgres

/// A database of one test, with the schema in it.
struct Database: Sendable {
  let name: String
  let server: EmbeddedPostgres
  let url: String

  /// Copies the template. A copy's anchor names the template, so it is set right, as if the schema had been made here.
  static func make(_ name: String, on server: EmbeddedPostgres) async throws -> Database {
    let admin = Client(server.connectionString)
    try await admin.execute("CREATE DATABASE \(name) TEMPLATE \(TestServer.template)")
    let database = Database(name: name, server: server, url: server.connectionString(database: name))
    try await database.client().execute(
      """
      UPDATE outbox.anchor SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database());
      UPDATE outbox.subscription SET since = NULL
      """
    )
    return database
  }

  /// A new session, connected when it is first used.
  func client() -> Client { Client(url) }

  func drop() async throws {
    try await Client(server.connectionString).execute("DROP DATABASE IF EXISTS \(name) WITH (FORCE)")
  }
}

/// Runs the body with a fresh copy of the template and drops it afterwards.
func withDatabase(_ body: (Database) async throws -> Void) async throws {
  let database = try await TestServer.shared.makeDatabase()
  do {
    try await body(database)
  } catch {
    try? await database.drop()  // The body's error matters more, and the server goes away in the end.
    throw error
  }
  try await database.drop()
}

/// The same on a server of its own, for tests that restart it or count what the whole server does.
func withOwnServer(_ settings: [String: String] = [:], _ body: (Database) async throws -> Void) async throws {
  let all = TestServer.settings.merging(settings) { $1 }
  try await withEmbeddedPostgres(.init(settings: all)) { (server) async throws in
    // Not a copy of a template: PostgreSQL 15 and later copy a sequence without logging its first 32 values anew, so a
    // crash soon after would set it back.
    let database = Database(name: "own", server: server, url: try await server.createDatabase("own"))
    try await database.client().migrate()
    try await body(database)
  }
}
