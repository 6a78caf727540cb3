import Foundation
import Testing

@testable import Postgres

/// What is sent comes back, and PostgreSQL sees in it what we meant.
@Suite struct ParameterTests {
  static let strings = [
    "", " ", "a", "'; DROP TABLE event; --", "\\", "\"", "$1", "{a,NULL,\"b\"}", "NULL", "line\nbreak\ttab\r",
    "Größe", "🐦‍⬛ martlet", "e\u{301} is not é", "\u{10FFFF}\u{FEFF}\u{202E}", String(repeating: "ä", count: 100_000),
  ]

  @Test(arguments: [true, false, nil]) func bool(value: Bool?) async throws {
    try await withConnection { connection in
      let rows = try connection.query("SELECT $1, $1 IS TRUE", [.bool(value)])
      try #expect(rows.bool(0, 0) == value)
      try #expect(rows.bool(0, 1) == (value == true))
    }
  }

  @Test func integers() async throws {
    try await withConnection { connection in
      for value in [Int32.min, -1, 0, 1, .max, nil] {
        let rows = try connection.query("SELECT $1, $1::text", [.int4(value)])
        try #expect(rows.int64(0, 0) == value.map(Int64.init))
        try #expect(rows.text(0, 1) == value.map { "\($0)" })
      }
      for value in [Int64.min, Int64(Int32.min) - 1, -1, 0, 1, .max, nil] {
        let rows = try connection.query("SELECT $1, $1::text", [.int8(value)])
        try #expect(rows.int64(0, 0) == value)
        try #expect(rows.text(0, 1) == value.map { "\($0)" })
      }
      try #expect(connection.query("SELECT (-7)::smallint").int64(0, 0) == -7)
    }
  }

  @Test func floats() async throws {
    try await withConnection { connection in
      let values = [
        0, -0.0, 0.1, -1e-308, .leastNonzeroMagnitude, .greatestFiniteMagnitude, .infinity, -.infinity, nil,
      ]
      for value in values as [Double?] {
        try #expect(connection.query("SELECT $1", [.float8(value)]).double(0, 0)?.bitPattern == value?.bitPattern)
      }
      try #expect(connection.query("SELECT $1", [.float8(.nan)]).double(0, 0)?.isNaN == true)
      try #expect(connection.query("SELECT 'NaN'::float8 = $1", [.float8(.nan)]).bool(0, 0) == true)
      try #expect(connection.query("SELECT 0.5::real").double(0, 0) == 0.5)
    }
  }

  @Test func text() async throws {
    try await withConnection { connection in
      for value in Self.strings + [nil] {
        let rows = try connection.query("SELECT $1, octet_length($1)", [.text(value)])
        try #expect(rows.text(0, 0) == value)
        try #expect(rows.int64(0, 1) == value.map { Int64($0.utf8.count) })
        try #expect(connection.queryText("SELECT $1", [.text(value)]).rows == [[value]])
      }
    }
  }

  @Test func zeroBytesInTextAreRefusedByTheServer() async throws {
    try await withConnection { connection in
      try #expect(postgresError { _ = try connection.query("SELECT $1", [.text("a\0b")]) }.sqlState == "22021")
      try #expect(postgresError { _ = try connection.query("SELECT $1", [.jsonb(#""\u0000""#)]) }.sqlState == "22P05")
      try #expect(connection.value("SELECT 1") == "1")
    }
  }

  @Test func bytea() async throws {
    try await withConnection { connection in
      let all = (0...255).map { UInt8($0) }
      for value in [[], [0], all, Array(repeating: 0xFF, count: 5_000_000), nil] as [[UInt8]?] {
        let rows = try connection.query("SELECT $1, md5($1), length($1)", [.bytea(value)])
        try #expect(rows.bytea(0, 0) == value)
        try #expect(rows.int64(0, 2) == value.map { Int64($0.count) })
      }
    }
  }

  @Test func uuid() async throws {
    try await withConnection { connection in
      for value in [UUID(), UUID(uuidString: "00000000-0000-0000-0000-000000000000"), nil] {
        let rows = try connection.query("SELECT $1, $1::text", [.uuid(value)])
        try #expect(rows.uuid(0, 0) == value)
        try #expect(rows.text(0, 1) == value?.uuidString.lowercased())
      }
    }
  }

  @Test func jsonb() async throws {
    try await withConnection { connection in
      for value in ["{}", "null", "\"'; --\"", #"{"a": [1, "🐦", null]}"#, "1e400", nil] {
        let rows = try connection.query("SELECT $1, $1::text", [.jsonb(value)])
        try withExtendedLifetime(rows) {
          let text = try rows.json(0, 0).map { String(decoding: $0, as: UTF8.self) }
          try #expect(text == rows.text(0, 1))
          #expect((text == nil) == (value == nil))
        }
      }
      let large = "\"" + String(repeating: "x", count: 5_000_000) + "\""
      try #expect(connection.query("SELECT length($1::text)", [.jsonb(large)]).int64(0, 0) == 5_000_002)
      try #expect(postgresError { _ = try connection.query("SELECT $1", [.jsonb("{")]) }.sqlState == "22P02")
    }
  }

  @Test func timestamps() async throws {
    try await withConnection { connection in
      let values = [0, -1, 1, 800_000_000_000_000, -211_813_488_000_000_000, .min, .max, nil] as [Int64?]
      for value in values.map({ $0.map(Timestamp.init(microsecondsSince2000:)) }) {
        try #expect(connection.query("SELECT $1", [.timestamp(value)]).timestamp(0, 0) == value)
      }
      let epoch = Timestamp(microsecondsSince2000: -946_684_800_000_000)
      try #expect(connection.query("SELECT $1 = 'epoch'", [.timestamp(epoch)]).bool(0, 0) == true)
      let infinite = try connection.query("SELECT 'infinity'::timestamptz, '-infinity'::timestamptz")
      try #expect(infinite.timestamp(0, 0) == Timestamp(microsecondsSince2000: .max))
      try #expect(infinite.timestamp(0, 1) == Timestamp(microsecondsSince2000: .min))
    }
  }
}
