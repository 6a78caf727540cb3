import Foundation
import Postgres

/// What publishing costs the application: its transactions with the event, and the same without, in turns.
package struct PublishBench: Bench {
  /// How many clients publish at once.
  package var clients = [1, 2, 4, 8, 16]
  /// Rows of the application's own, and events, of a transaction.
  package var sizes = [1, 1000]
  /// Of each measurement.
  package var seconds = 3.0
  package var runs = 5
  package var bodyBytes = 500
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> PublishReport {
    try await withBenchScene { scene in
      var cells: [PublishReport.Cell] = sizes.flatMap { size in clients.map { .init(size: size, clients: $0) } }
      var machine: Machine?
      for number in 1...runs {
        progress("round \(number) of \(runs)")
        let database = try await BenchDatabase.create("bench_\(number)", on: scene.server)
        if machine == nil { machine = try await scene.machine(version, database) }
        try await database.session.withConnection {
          try $0.execute(
            """
            CREATE TABLE bench_order (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL,
              total_cents int NOT NULL, note text NOT NULL, created_at timestamptz NOT NULL DEFAULT clock_timestamp())
            """
          )
        }
        for index in cells.indices {
          // Now one first and now the other: a machine that slows down in the middle shall hit both.
          for withEvent in number.isMultiple(of: 2) ? [true, false] : [false, true] {
            let run = try await measure(database, scene, cells[index], withEvent: withEvent)
            if withEvent { cells[index].with.append(run) } else { cells[index].without.append(run) }
          }
        }
        try await database.drop()
      }
      guard let machine else { throw BenchError("runs must be positive") }
      return PublishReport(seconds: seconds, runs: runs, bodyBytes: bodyBytes, machine: machine, cells: cells)
    }
  }

  private func measure(_ database: BenchDatabase, _ scene: BenchScene, _ cell: PublishReport.Cell, withEvent: Bool)
    async throws -> PublishReport.Run
  {
    let transaction = Transaction(size: cell.size, withEvent: withEvent, bodyBytes: bodyBytes)
    let sessions = (0..<cell.clients).map { _ in database.anotherSession() }
    // Connected, and their statements prepared, before the clock starts.
    for session in sessions { try await session.withConnection { try transaction.run($0) } }
    let published = try await database.numbers("SELECT count(*) FROM outbox.event")[0]
    try await database.session.withConnection { try $0.execute("CHECKPOINT") }
    let before = try await database.numbers("SELECT pg_current_wal_insert_lsn() - '0/0'")[0]
    let postgres = scene.postgresSeconds
    let began = monotonicNanoseconds()
    let until = began + UInt64(seconds * 1e9)
    let took = try await withThrowingTaskGroup(of: [Double].self) { group in
      for session in sessions {
        group.addTask {
          try await session.withConnection { connection in
            var took: [Double] = []
            var now = monotonicNanoseconds()
            while now < until {
              try transaction.run(connection)
              let then = monotonicNanoseconds()
              took.append(Double(then - now) / 1e6)
              now = then
            }
            return took
          }
        }
      }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    let elapsed = Double(monotonicNanoseconds() - began) / 1e9
    let cpu = scene.postgresSeconds - postgres
    let wal = try await database.numbers("SELECT pg_current_wal_insert_lsn() - '0/0'")[0] - before
    for session in sessions { await session.disconnect() }
    let count = Double(took.count)
    let events = try await database.numbers("SELECT count(*) FROM outbox.event")[0] - published
    guard events == (withEvent ? count * Double(cell.size) : 0) else {
      throw BenchError("\(took.count) transactions have published \(events.text(0)) events")
    }
    return PublishReport.Run(
      perSecond: count / elapsed,
      milliseconds: Distribution(took),
      postgresMicroseconds: cpu * 1e6 / count,
      walBytes: wal / count
    )
  }

  /// Rows of the application's own, and an event for each, or not.
  private struct Transaction {
    var size: Int
    var withEvent: Bool
    var filler: String
    private var payload: String { #"{"order": 1, "note": "\#(filler)"}"# }

    init(size: Int, withEvent: Bool, bodyBytes: Int) {
      (self.size, self.withEvent) = (size, withEvent)
      filler = String(repeating: "x", count: max(0, bodyBytes - 100))
    }

    func run(_ connection: Connection) throws {
      try connection.execute("BEGIN")
      if size == 1 {
        _ = try connection.query(
          "INSERT INTO bench_order (customer, total_cents, note) VALUES ('somebody', 1234, $1)",
          [.text(filler)]
        )
        if withEvent {
          _ = try connection.query(
            "INSERT INTO outbox.event (type, payload) VALUES ('order.created', $1)",
            [.jsonb(payload)]
          )
        }
      } else {
        _ = try connection.query(
          "INSERT INTO bench_order (customer, total_cents, note) SELECT 'somebody', 1234, $1 FROM generate_series(1, $2)",
          [.text(filler), .int4(Int32(clamping: size))]
        )
        if withEvent {
          _ = try connection.query(
            "INSERT INTO outbox.event (type, payload) SELECT 'order.created', $1 FROM generate_series(1, $2)",
            [.jsonb(payload), .int4(Int32(clamping: size))]
          )
        }
      }
      try connection.execute("COMMIT")
    }
  }
}

package struct PublishReport: TabularReport {
  /// Of one transaction.
  package struct Run: Sendable, Codable {
    package var perSecond: Double
    package var milliseconds: Distribution
    package var postgresMicroseconds: Double
    package var walBytes: Double
  }

  package struct Cell: Sendable, Codable {
    /// Rows, and events, of a transaction.
    package var size: Int
    package var clients: Int
    package var with: [Run] = []
    package var without: [Run] = []
  }

  package var seconds: Double
  package var runs: Int
  package var bodyBytes: Int
  package var machine: Machine
  package var cells: [Cell]

  package var title: String { "publish: what an event costs the application's transaction" }

  package var parts: [ReportPart] {
    var parts: [ReportPart] = [
      .lines([
        "a transaction inserts rows of the application's own of \(bodyBytes) B, and with each, or not, an event of \(bodyBytes) B",
        "commits: synchronous; no dispatcher runs; \(seconds.text(1)) s each, without and with the event in turns",
        "\(runs) runs, median (lowest–highest)",
      ])
    ]
    for size in Set(cells.map(\.size)).sorted() {
      parts.append(.lines(["\(size) row\(size == 1 ? "" : "s") a transaction"]))
      parts.append(.table(table(cells.filter { $0.size == size })))
    }
    return parts
  }

  private func table(_ cells: [Cell]) -> ReportTable {
    ReportTable(
      columns: [
        "clients", "transactions/s without", "with", "ratio", "p50 ms without", "with", "p99 ms without", "with",
        "CPU µs per event more", "WAL B per event more",
      ],
      rows: cells.map { cell in
        func text(_ runs: [Run], _ digits: Int, _ value: (Run) -> Double) -> String {
          Spread(runs.map(value)).text(digits)
        }
        func more(_ digits: Int, _ value: (Run) -> Double) -> String {
          Spread(zip(cell.with, cell.without).map { (value($0) - value($1)) / Double(cell.size) }).text(digits)
        }
        return [
          "\(cell.clients)", text(cell.without, 0, \.perSecond), text(cell.with, 0, \.perSecond),
          Spread(zip(cell.with, cell.without).map { $0.perSecond / $1.perSecond }).text(2),
          text(cell.without, 2, \.milliseconds.p50), text(cell.with, 2, \.milliseconds.p50),
          text(cell.without, 2, \.milliseconds.p99), text(cell.with, 2, \.milliseconds.p99),
          more(1, \.postgresMicroseconds), more(0, \.walBytes),
        ]
      }
    )
  }
}
