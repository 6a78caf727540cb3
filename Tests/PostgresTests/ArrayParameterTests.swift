import Foundation
import Testing

@testable import Postgres

@Suite struct ArrayParameterTests {
  @Test func emptyArraysAreEmptyAndNotNull() async throws {
    try await withConnection { connection in
      let empty: [Parameter] = [.int4Array([]), .int8Array([]), .textArray([]), .uuidArray([]), .timestampArray([])]
      for parameter in empty {
        let rows = try connection.query("SELECT cardinality($1), $1 IS NULL", [parameter])
        try #expect(rows.int64(0, 0) == 0)
        try #expect(rows.bool(0, 1) == false)
      }
      try #expect(connection.query("SELECT $1", [.int8Array([])]).int64Array(0, 0) == [])
    }
  }

  @Test func elementsAndNullsKeepTheirPlaces() async throws {
    try await withConnection { connection in
      func elements(_ parameter: Parameter) throws -> [String?] {
        try connection.queryText("SELECT x FROM unnest($1) WITH ORDINALITY u(x, n) ORDER BY n", [parameter]).rows.map {
          $0[0]
        }
      }
      try #expect(elements(.int4Array([1, nil, .min, .max])) == ["1", nil, "-2147483648", "2147483647"])
      try #expect(elements(.int8Array([nil, .min, .max])) == [nil, "-9223372036854775808", "9223372036854775807"])
      try #expect(elements(.int8Array([nil])) == [nil])
      let strings = ParameterTests.strings + [nil, "NULL", nil]
      try #expect(elements(.textArray(strings)) == strings)
      let ids = [UUID(), UUID()]
      try #expect(elements(.uuidArray(ids)) == ids.map { $0.uuidString.lowercased() })
      let times = [0, nil, .max] as [Int64?]
      try connection.execute("SET timezone = 'UTC'")
      #expect(
        try elements(.timestampArray(times.map { $0.map(Timestamp.init(microsecondsSince2000:)) }))
          == ["2000-01-01 00:00:00+00", nil, "infinity"]
      )
    }
  }

  @Test func largeArrays() async throws {
    try await withConnection { connection in
      let numbers = (0..<300_000).map { Int64($0) * 1_000_003 }
      try #expect(connection.query("SELECT $1", [.int8Array(numbers)]).int64Array(0, 0) == numbers)
      let texts = (0..<100_000).map { $0 % 3 == 0 ? nil : String(repeating: "x", count: $0 % 50) }
      let rows = try connection.query("SELECT sum(length(x)), count(x) FROM unnest($1) x", [.textArray(texts)])
      try #expect(rows.int64(0, 0) == Int64(texts.compactMap { $0?.count }.reduce(0, +)))
      try #expect(rows.int64(0, 1) == Int64(texts.compactMap { $0 }.count))
    }
  }

  @Test func manyParametersAndTooMany() async throws {
    try await withConnection { connection in
      let sum = (1...1000).map { "$\($0)" }.joined(separator: " + ")
      let parameters = (1...1000).map { Parameter.int8(Int64($0)) }
      try #expect(connection.query("SELECT \(sum)", parameters).int64(0, 0) == 500_500)
      let tooMany = [Parameter](repeating: .int4(1), count: 70_000)
      let error = try postgresError { _ = try connection.query("SELECT 1", tooMany) }
      #expect(error.kind == .server && error.remedy == .giveUp && error.message.contains("65535"))
      #expect(connection.isUsable)
    }
  }

  @Test func moreThanAMessageHoldsIsRefusedAndTheConnectionKept() async throws {
    try await withConnection { connection in
      // One buffer, shared by all: nothing of this size is copied before it is refused.
      let half = Parameter.bytea([UInt8](repeating: 0, count: 1 << 29))
      let error = try postgresError { _ = try connection.query("SELECT length($1) + length($2)", [half, half]) }
      #expect(error.sqlState == "54000" && error.remedy == .giveUp)
      try #expect(connection.value("SELECT 1") == "1")
    }
  }
}
