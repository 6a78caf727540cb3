import Foundation

/// What a delivery costs PostgreSQL, from the insert of its event to its history, beside the bare insert of the same events
/// into a table with the same columns and one index.
package struct CostBench: Bench {
  package var events = 100_000
  package var bodyBytes = 500
  package var inFlight = 64
  package var runs = 5
  package var synchronousCommit = false
  package var version: String
  package var progress: @Sendable (String) -> Void = { _ in }

  package init(version: String) { self.version = version }

  package func run() async throws -> CostReport {
    // A vacuum would fall into one phase or another by chance, and is paid for in none.
    let settings = StatementStatistics.settings.merging(["autovacuum": "off"]) { _, ours in ours }
    return try await withBenchScene(settings: settings) { scene in
      try await scene.withNginx { nginx in
        var rounds: [CostReport.Round] = []
        var machine: Machine?
        for number in 1...runs {
          progress("round \(number) of \(runs)")
          let database = try await BenchDatabase.create("bench_\(number)", on: scene.server)
          if machine == nil { machine = try await scene.machine(version, database, nginx: nginx) }
          try await StatementStatistics.prepare(database)
          try await database.addEndpoint(nginx.url, maxInFlight: inFlight)
          rounds.append(try await round(database, scene, floorFirst: !number.isMultiple(of: 2)))
          try await database.drop()
        }
        guard let machine else { throw BenchError("runs must be positive") }
        return CostReport(bench: self, machine: machine, rounds: rounds)
      }
    }
  }

  private func round(_ database: BenchDatabase, _ scene: BenchScene, floorFirst: Bool) async throws
    -> CostReport.Round
  {
    try await database.session.withConnection {
      try $0.execute("CREATE TABLE bench_floor (LIKE outbox.event INCLUDING DEFAULTS, PRIMARY KEY (id))")
    }
    var floor: CostReport.Cost?
    if floorFirst { floor = try await insert(into: "bench_floor", database, scene) }
    let insert = try await insert(into: "outbox.event", database, scene)
    if floor == nil { floor = try await self.insert(into: "bench_floor", database, scene) }
    let delivery = try await measure(database, scene) {
      try await scene.withDispatchers(on: database, .init(synchronousCommit: synchronousCommit)) { dispatchers in
        try await wait(within: .seconds(600), every: .milliseconds(200), for: "the deliveries") {
          try await dispatchers[0].check()
          return try await database.isDrained()
        }
      }
    }
    _ = try await database.requireDelivered(events)
    guard let floor else { throw BenchError("the floor was not measured") }
    return CostReport.Round(floor: floor, insert: insert, delivery: delivery)
  }

  /// In transactions of a thousand, so that the commits themselves weigh little.
  private func insert(into table: String, _ database: BenchDatabase, _ scene: BenchScene) async throws
    -> CostReport.Cost
  {
    try await measure(database, scene) {
      for first in stride(from: 1, through: events, by: 1000) {
        try await database.insert(first...min(events, first + 999), into: table, bodyBytes: bodyBytes)
      }
    }
  }

  private func measure(_ database: BenchDatabase, _ scene: BenchScene, _ body: () async throws -> Void) async throws
    -> CostReport.Cost
  {
    // So that each phase pays for the same: what it writes first to a page after a checkpoint, it writes whole.
    try await database.session.withConnection { try $0.execute("CHECKPOINT") }
    let before = (try await DatabaseCounters(database), try await StatementStatistics(database), scene.postgresSeconds)
    try await body()
    let postgres = scene.postgresSeconds - before.2
    let after = (try await DatabaseCounters(database), try await StatementStatistics(database))
    let count = Double(events)
    let kinds = (after.1 - before.1).kinds.filter { $0.key != "other" }
    return CostReport.Cost(
      microseconds: postgres * 1e6 / count,
      walBytes: (after.0.walBytes - before.0.walBytes) / count,
      deadRows: after.0.deadRows - before.0.deadRows,
      statements: kinds.mapValues {
        CostReport.Statement(
          calls: $0.calls,
          microseconds: $0.milliseconds * 1000 / count,
          buffers: $0.buffers / count,
          walBytes: $0.walBytes / count
        )
      }
    )
  }
}

package struct CostReport: TabularReport {
  /// Of one event.
  package struct Cost: Sendable, Codable {
    /// Processor time of all of PostgreSQL's processes.
    package var microseconds: Double
    package var walBytes: Double
    /// Row versions left behind by updates and deletes; of all events together.
    package var deadRows: Double
    package var statements: [String: Statement]
    package var calls: Double { statements.values.reduce(0) { $0 + $1.calls } }
    package var buffers: Double { statements.values.reduce(0) { $0 + $1.buffers } }
  }

  /// Calls of all events together; the rest of one event, in the server's time.
  package struct Statement: Sendable, Codable {
    package var calls: Double
    package var microseconds: Double
    package var buffers: Double
    package var walBytes: Double
  }

  package struct Round: Sendable, Codable {
    package var floor: Cost
    package var insert: Cost
    package var delivery: Cost
    package var walRatio: Double { (insert.walBytes + delivery.walBytes) / floor.walBytes }
    package var cpuRatio: Double { (insert.microseconds + delivery.microseconds) / floor.microseconds }
  }

  package var events: Int
  package var bodyBytes: Int
  package var commitMode: String
  package var machine: Machine
  package var rounds: [Round]

  init(bench: CostBench, machine: Machine, rounds: [Round]) {
    (events, bodyBytes, self.machine, self.rounds) = (bench.events, bench.bodyBytes, machine, rounds)
    commitMode = DispatcherProcess.Options(synchronousCommit: bench.synchronousCommit).commitMode
  }

  package var title: String { "cost: what a delivery costs PostgreSQL" }

  package var parts: [ReportPart] {
    [
      .lines([
        "\(events) events of \(bodyBytes) B, inserted a thousand a transaction, delivered by one dispatcher to one endpoint (nginx)",
        "commits: the inserts' synchronous; the dispatcher's \(commitMode)",
        "for each event; \(rounds.count) runs, median (lowest–highest); CPU of all of PostgreSQL's processes",
        "floor: the same events into a table with the same columns, the same defaults and one index",
      ]),
      .table(costs),
      .table(statements),
      .lines(["every event was delivered exactly once; none waiting, none dead"]),
    ]
  }

  private var costs: ReportTable {
    func row(_ name: String, _ cost: (Round) -> Cost) -> [String] {
      func text(_ digits: Int, _ value: (Cost) -> Double) -> String {
        Spread(rounds.map { value(cost($0)) }).text(digits)
      }
      return [
        name, text(0, \.walBytes), text(1, \.microseconds), text(1, \.buffers), text(0, \.calls),
        text(4) { $0.deadRows / Double(events) },
      ]
    }
    func ratio(_ value: (Round) -> Double) -> String { Spread(rounds.map(value)).text(2) }
    return ReportTable(
      columns: ["", "WAL, B", "CPU, µs", "buffers", "statements, in all", "dead rows"],
      rows: [
        row("floor: bare insert", \.floor),
        row("insert into outbox.event", \.insert),
        row("cut, record and the rest of the delivery (aim 15 µs)", \.delivery),
        ["both, over the floor (aim 1.35 of WAL)", ratio(\.walRatio), ratio(\.cpuRatio), "", "", ""],
      ]
    )
  }

  private var statements: ReportTable {
    ReportTable(
      columns: ["of the delivery, by statement", "calls, in all", "server's time, µs", "buffers", "WAL, B"],
      rows: Set(rounds.flatMap(\.delivery.statements.keys)).sorted().map { kind in
        func text(_ digits: Int, _ value: (Statement) -> Double) -> String {
          Spread(rounds.compactMap { $0.delivery.statements[kind] }.map(value)).text(digits)
        }
        return [kind, text(0, \.calls), text(2, \.microseconds), text(2, \.buffers), text(1, \.walBytes)]
      }
    )
  }
}
