import Foundation
import OutboxStore
import Postgres
import Schema
import Testing

@testable import EmbeddedPostgres

@Suite struct MigratorTests {
  @Test func migrationIsIdempotentAndSaysWhatItDid() async throws {
    try await withEmptyDatabase { database in
      let client = database.client()
      let status = { try await client.session.withConnection { try Migrator($0).status() } }
      #expect(try await status() == .absent)
      #expect(try await apply(client) == Migration.all.map(\.name))
      #expect(try await status() == .version(Migrator.newest))
      #expect(try await apply(client) == [])
      #expect(
        try await client.column("SELECT version FROM outbox.migration ORDER BY 1")
          == (1...Migrator.newest).map(String.init)
      )
      try await client.session.withConnection { try Migrator($0).requireCurrent() }
    }
  }

  @Test func twoAtOnceApplyEachFileOnce() async throws {
    try await withEmptyDatabase { database in
      async let first = apply(database.client())
      async let second = apply(database.client())
      let (one, other) = (try await first, try await second)
      #expect((one + other).sorted() == Migration.all.map(\.name))
    }
  }

  @Test func newerDatabaseIsRefused() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.execute("INSERT INTO outbox.migration (version, name) VALUES (99, 'later')")
      for step in [{ _ = try Migrator($0).migrate() }, { try Migrator($0).requireCurrent() }]
        as [@Sendable (Connection) throws -> Void]
      {
        await #expect(throws: MigrationError.databaseIsNewer(99)) {
          try await client.session.withConnection { try step($0) }
        }
      }
    }
  }

  @Test func missingAndOldSchemasAreNamed() async throws {
    try await withEmptyDatabase { database in
      let client = database.client()
      await #expect(throws: MigrationError.schemaIsMissing) {
        try await client.session.withConnection { try Migrator($0).requireCurrent() }
      }
      try await client.execute(Migration.all[0].sql)
      await #expect(throws: MigrationError.schemaIsOld(1)) {
        try await client.session.withConnection { try Migrator($0).requireCurrent() }
      }
    }
  }

  @Test func migrationResumesAfterAFileThatFailedHalfway() async throws {
    try await withEmptyDatabase { database in
      let client = database.client()
      try await client.execute(
        """
        CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'outbox.reconcile(%') THEN
            RAISE EXCEPTION 'no reconcile today';
          END IF;
        END $$;
        CREATE EVENT TRIGGER refuse ON ddl_command_end EXECUTE FUNCTION public.refuse();
        """
      )
      await #expect { try await apply(client) } throws: { ($0 as? PostgresError)?.message == "no reconcile today" }
      #expect(try await client.session.withConnection { try Migrator($0).status() } == .version(13))
      #expect(try await client.value("SELECT to_regproc('outbox.findings')") == nil, "the file is one transaction")
      try await client.execute("DROP EVENT TRIGGER refuse; DROP FUNCTION public.refuse()")
      #expect(try await apply(client) == Migration.all.dropFirst(13).map(\.name))
    }
  }

  @Test func psqlMakesTheSameSchema() async throws {
    try await withEmptyDatabase { database in
      let template = Database(
        name: TestServer.template,
        server: database.server,
        url: database.server.connectionString(database: TestServer.template)
      )
      for migration in Migration.all { _ = try await database.psql(["-f", sqlFile(migration).path]) }
      let (ours, theirs) = (try await template.dumpOfSchema(), try await database.dumpOfSchema())
      #expect(ours.count > 1_000)
      #expect(ours == theirs)
      await #expect(throws: (any Error).self) { _ = try await database.psql(["-f", sqlFile(Migration.all[3]).path]) }
      #expect(try await apply(database.client()) == [])
    }
  }

  @Test func fileOutOfOrderIsRefused() async throws {
    try await withEmptyDatabase { database in
      let client = database.client()
      try await client.execute(Migration.all[0].sql)
      await #expect {
        try await client.execute(Migration.all[2].sql)
      } throws: {
        ($0 as? PostgresError)?.message.contains("needs migration 2 first") == true
      }
      try await client.execute("ROLLBACK")
      await #expect {
        try await client.execute(Migration.all[0].sql)
      } throws: {
        ($0 as? PostgresError)?.message.contains("applied already") == true
      }
    }
  }

  @Test func databaseThatIsNotUTF8IsRefused() async throws {
    try await withEmptyDatabase("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'") { database in
      await #expect {
        try await apply(database.client())
      } throws: {
        ($0 as? PostgresError)?.message.contains("UTF8") == true
      }
    }
  }

  @Test func schemaOfSomebodyElseIsLeftAlone() async throws {
    try await withEmptyDatabase { database in
      let client = database.client()
      try await client.execute("CREATE SCHEMA outbox; CREATE TABLE outbox.event (theirs int)")
      await #expect {
        try await apply(client)
      } throws: {
        ($0 as? PostgresError)?.message.contains("not Martlet's") == true
      }
      #expect(try await client.int("SELECT count(*) FROM outbox.event") == 0)
    }
  }

  private func apply(_ client: Client) async throws -> [String] {
    try await client.session.withConnection { try Migrator($0).migrate().map(\.name) }
  }

  private func sqlFile(_ migration: Migration) -> URL {
    URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../../sql/\(migration.name).sql").standardizedFileURL
  }
}

func withEmptyDatabase(_ options: String = "", _ body: (Database) async throws -> Void) async throws {
  let server = try await TestServer.shared.server()
  let name = "empty_\(UInt32.random(in: 0 ... .max))"
  let admin = Client(server.connectionString)
  try await admin.execute("CREATE DATABASE \(name) \(options)")
  let database = Database(name: name, server: server, url: server.connectionString(database: name))
  do {
    try await body(database)
  } catch {
    try? await database.drop()  // The body's error matters more.
    throw error
  }
  try await database.drop()
}

extension Database {
  func psql(_ arguments: [String]) async throws -> String {
    try await server.tools.run(
      [server.binaries.client("psql"), url, "-XAtq", "-v", "ON_ERROR_STOP=1"] + arguments
    )
  }

  /// Without the random word that newer versions write to keep psql's restricted mode.
  func dumpOfSchema() async throws -> [String] {
    try await server.tools.run([server.binaries.client("pg_dump"), "--schema-only", url])
      .split(separator: "\n").map(String.init).filter { !$0.hasPrefix("\\restrict") && !$0.hasPrefix("\\unrestrict") }
  }
}
