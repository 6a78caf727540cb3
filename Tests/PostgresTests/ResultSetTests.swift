import Foundation
import Testing

@testable import Postgres

/// Whatever a statement returns, reading it as something else throws and never traps.
@Suite struct ResultSetTests {
  private static let expressions = [
    "true", "1::smallint", "1", "1::bigint", "1.5::real", "1.5::float8", "1.5::numeric", "'x'::text", "''::text",
    "'x'::varchar", "'x'::name", "'x'::\"char\"", "''::bytea", "'\\x01020304050607'::bytea", "'{}'::json",
    "'{}'::jsonb",
    "gen_random_uuid()", "now()", "now()::date", "now()::timestamp", "'1 day'::interval", "'{}'::int[]", "'{1}'::int[]",
    "'{}'::bigint[]", "'{1,2}'::bigint[]", "'{1,NULL}'::bigint[]", "'{{1,2},{3,4}}'::bigint[]",
    "'[5:6]={1,2}'::bigint[]", "'{a}'::text[]", "'{}'::uuid[]", "'127.0.0.1'::inet", "ROW(1, 'x')", "NULL",
    "NULL::bigint", "''::xml", "'1'::xid8", "int8range(1, 2)",
  ]

  private static let readers: [(String, Set<String>, @Sendable (ResultSet) throws -> Any?)] = [
    ("int64", ["1::smallint", "1", "1::bigint"], { try $0.int64(0, 0) }),
    ("double", ["1.5::real", "1.5::float8"], { try $0.double(0, 0) }),
    ("bool", ["true"], { try $0.bool(0, 0) }),
    ("uuid", ["gen_random_uuid()"], { try $0.uuid(0, 0) }),
    ("timestamp", ["now()"], { try $0.timestamp(0, 0) }),
    ("json", ["'{}'::jsonb"], { try $0.json(0, 0) }),
    ("bytea", ["''::bytea", "'\\x01020304050607'::bytea"], { try $0.bytea(0, 0) }),
    (
      "int64Array", ["'{}'::bigint[]", "'{1,2}'::bigint[]", "'[5:6]={1,2}'::bigint[]"], { try $0.int64Array(0, 0) }
    ),
    (
      "text",
      ["'x'::text", "''::text", "'x'::varchar", "'x'::name", "'x'::\"char\"", "'{}'::json", "''::xml"],
      { try $0.text(0, 0) }
    ),
  ]

  @Test func readersTakeTheirTypesAndRefuseAllOthers() async throws {
    try await withConnection { connection in
      for expression in Self.expressions {
        let rows = try connection.query("SELECT \(expression) AS c")
        for (reader, accepted, read) in Self.readers {
          if expression.hasPrefix("NULL") {
            try #expect(read(rows) == nil, "\(reader) of \(expression)")
          } else if accepted.contains(expression) {
            try #expect(read(rows) != nil, "\(reader) of \(expression)")
          } else {
            let error = try postgresError { _ = try read(rows) }
            #expect(error.kind == .decoding && error.remedy == .giveUp, "\(reader) of \(expression)")
            #expect(error.message.hasPrefix("column c is not "), "\(reader) of \(expression)")
          }
        }
        _ = rows.string(0, 0)  // Unchecked, but never a trap.
      }
    }
  }

  @Test func outsideTheRowsEverythingIsNull() async throws {
    try await withConnection { connection in
      let rows = try connection.query("SELECT 1 AS a WHERE false")
      #expect(rows.count == 0 && rows.columns == ["a"])
      for (row, column) in [(0, 0), (-1, 0), (0, 1), (0, -1), (Int.max, Int.min)] {
        try #expect(rows.int64(row, column) == nil)
        #expect(rows.string(row, column) == nil)
        #expect(throws: PostgresError.self) { try rows.required(rows.int64(row, column), column) }
      }
    }
  }

  @Test func enumsAndDomainsAreText() async throws {
    try await withConnection { connection in
      let (kind, word) = (uniqueName("kind"), uniqueName("word"))
      try connection.execute("CREATE TYPE \(kind) AS ENUM ('ä', 'b'); CREATE DOMAIN \(word) AS text")
      let rows = try connection.query("SELECT 'ä'::\(kind), 'w'::\(word)")
      try #expect(rows.text(0, 0) == "ä")
      try #expect(rows.text(0, 1) == "w")
    }
  }

  @Test func affectedRowsAndTag() async throws {
    try await withConnection { connection in
      try connection.execute("CREATE TEMP TABLE t (n int)")
      let inserted = try connection.query("INSERT INTO t SELECT generate_series(1, $1)", [.int4(3)])
      #expect(inserted.affectedRows == 3 && inserted.commandTag == "INSERT 0 3")
      try #expect(connection.query("DELETE FROM t WHERE n > $1", [.int4(1)]).affectedRows == 2)
      try #expect(connection.query("CREATE TEMP TABLE u ()").affectedRows == 0)
    }
  }

  @Test func textOfEverythingIsAsPsqlShowsIt() async throws {
    try await withConnection { connection in
      let (columns, rows) = try connection.queryText("SELECT true AS b, '{1,NULL}'::int[] AS a, NULL AS n, 1.50 AS d")
      #expect(columns == ["b", "a", "n", "d"])
      #expect(rows == [["t", "{1,NULL}", nil, "1.50"]])
    }
  }
}

@Suite struct TimestampTests {
  @Test func arithmeticStaysInRange() {
    let zero = Timestamp(microsecondsSince2000: 0)
    #expect(zero.adding(.milliseconds(-1500)).microsecondsSince2000 == -1_500_000)
    #expect(zero.microsecondsSince1970 == 946_684_800_000_000)
    #expect(zero.adding(.seconds(Int64.max)).microsecondsSince2000 == .max)
    #expect(zero.adding(.seconds(Int64.min)).microsecondsSince2000 == .min)
    for infinite in [Timestamp(microsecondsSince2000: .max), Timestamp(microsecondsSince2000: .min)] {
      #expect(infinite.adding(.seconds(1)) == infinite && infinite.adding(.seconds(-1)) == infinite)
      #expect(infinite.microsecondsSince1970 == infinite.microsecondsSince2000)
    }
  }

  @Test func millisecondsStayInRange() {
    #expect(Duration.microseconds(1999).milliseconds == 1)
    #expect(Duration.milliseconds(-1500).milliseconds == -1500)
    #expect(Duration.seconds(Int64.max).milliseconds == .max)
    #expect(Duration.seconds(Int64.min).milliseconds == .min)
  }
}
