import Foundation
import Testing

@testable import Postgres

@Suite struct ServerErrorTests {
  @Test func errorsCarryWhatTheServerSays() async throws {
    try await withConnection { connection in
      let error = try postgresError {
        try connection.execute(
          """
          DO $$ BEGIN RAISE EXCEPTION 'no such thing' USING ERRCODE = 'OBX01', DETAIL = 'a row', HINT = 'look'; END $$
          """
        )
      }
      #expect(error.kind == .server && error.sqlState == "OBX01" && error.message == "no such thing")
      #expect(error.detail == "a row" && error.hint == "look" && error.routine == "exec_stmt_raise")
      #expect(error.context?.contains("PL/pgSQL") == true)
      #expect("\(error)" == "no such thing (SQLSTATE OBX01) Hint: look")
    }
  }

  @Test func sqlStatesAreTheServers() async throws {
    try await withConnection { connection in
      func sqlState(_ sql: String, _ parameters: [Parameter] = []) throws -> String {
        let error = try postgresError { _ = try connection.query(sql, parameters) }
        #expect(error.kind == .server && connection.isUsable)
        return error.sqlState
      }
      try connection.execute("CREATE TEMP TABLE t (n int PRIMARY KEY CHECK (n > 0))")
      try connection.execute("INSERT INTO t VALUES (1)")
      try #expect(sqlState("SELEC 1") == "42601")
      try #expect(sqlState("SELECT * FROM nowhere") == "42P01")
      try #expect(sqlState("INSERT INTO t VALUES ($1)", [.int4(1)]) == "23505")
      try #expect(sqlState("INSERT INTO t VALUES ($1)", [.int4(-1)]) == "23514")
      try #expect(sqlState("INSERT INTO t VALUES ($1)", [.int4(nil)]) == "23502")
      try #expect(sqlState("SELECT 1 / $1", [.int4(0)]) == "22012")
      try #expect(sqlState("SELECT 1; SELECT 2") == "42601")
      try #expect(sqlState("SELECT $1", []) == "08P01")
    }
  }

  /// Values that come from outside, in every kind of message that quotes one.
  @Test func descriptionsNeverContainParameters() async throws {
    try await withConnection { connection in
      let secret = "hunter2\" or \"more"
      try connection.execute("CREATE TEMP TABLE t (s text PRIMARY KEY CHECK (s <> 'bad hunter2'), i text)")
      _ = try connection.query("INSERT INTO t VALUES ($1)", [.text(secret)])
      let statements = [
        "INSERT INTO t VALUES ($1)", "INSERT INTO t VALUES ('bad hunter2' || left($1, 0))", "SELECT $1::int",
        "SELECT $1::timestamptz", "SELECT $1::jsonb", "SELECT $1::uuid", "SELECT $1::inet", "SELECT $1::boolean",
        "SELECT $1::interval", "SELECT $1::bytea || '\\x'::bytea", "SELECT to_date($1, 'YYYY')", "SELECT $1::int[]",
        "SELECT ('9999999999999' || left($1, 0))::int", "SELECT $1::point", "SELECT $1::xid8", "SELECT $1::float8",
      ]
      for statement in statements {
        do {
          _ = try connection.query(statement, [.text(secret)])
        } catch let error as PostgresError {
          #expect(error.kind == .server)
          #expect(!"\(error)".contains("hunter2") && !"\(error)".contains("9999999999999"), "\(statement)")
          #expect(!error.message.contains("hunter2") && !error.message.isEmpty, "\(statement)")
        }
      }
      let error = try postgresError { _ = try connection.query("SELECT $1::int", [.text(secret)]) }
      #expect("\(error)" == "invalid input syntax for type integer: \"…\" (SQLSTATE 22P02)")
      #expect(error.detail?.contains(secret) == true)
    }
  }

  @Test func zeroByteInAStatementIsRefused() async throws {
    try await withConnection { connection in
      try connection.execute("CREATE TEMP TABLE t ()")
      for run in [
        { try connection.execute($0) }, { _ = try connection.query($0) }, { _ = try connection.queryText($0) },
      ]
        as [(String) throws -> Void]
      {
        try #expect(postgresError { try run("DELETE FROM t\0 WHERE false") }.sqlState == "42601")
      }
    }
  }

  @Test func copyIsRefusedAndTheConnectionKept() async throws {
    try await withConnection { connection in
      try connection.execute("CREATE TEMP TABLE t (n int)")
      for statement in ["COPY t FROM STDIN", "COPY t TO STDOUT"] {
        let error = try postgresError { try connection.execute(statement) }
        #expect(error.kind == .server && error.message.contains("COPY"))
        try #expect(connection.query("SELECT 1").int64(0, 0) == 1)
      }
    }
  }

  @Test func emptyStatementsDoNothing() async throws {
    try await withConnection { connection in
      try connection.execute("")
      try connection.execute(";; -- nothing")
      try #expect(connection.query("").count == 0)
    }
  }

  @Test func severalStatementsFailAsOne() async throws {
    try await withConnection { connection in
      let table = uniqueName("t")
      try #expect(postgresError { try connection.execute("CREATE TABLE \(table) (); SELECT 1/0") }.sqlState == "22012")
      try #expect(connection.value("SELECT to_regclass('\(table)')") == nil)
    }
  }
}
