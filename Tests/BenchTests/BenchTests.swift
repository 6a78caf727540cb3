import Foundation
import TestSupport
import Testing

/// Every benchmark, at a size that is no measurement: that it runs, that it proves what it has to prove of deliveries (it
/// fails otherwise), and that its report has what it promises.
@Suite(.serialized) struct BenchTests {
  @Test func drainReportsTheFloorBesideItself() async throws {
    let report = try await bench("drain", "--events", "2000", "--runs", "1")
    let rounds = try #require(report["rounds"] as? [[String: Any]])
    #expect(rounds.count == 1)
    #expect(try number(rounds[0], "per_second") > 0)
    #expect(try number(rounds[0], "bare_per_second") > 0)
    #expect(try number(rounds[0], "wal_bytes") > 0)
  }

  @Test func costCountsInsertAndDeliveryBesideABareInsert() async throws {
    let report = try await bench("cost", "--events", "2000", "--runs", "1")
    let round = try #require((report["rounds"] as? [[String: Any]])?.first)
    let costs = try ["floor", "insert", "delivery"].map { try #require(round[$0] as? [String: Any]) }
    for cost in costs { #expect(try number(cost, "wal_bytes") > 0) }
    // An insert into the log, which has an index more, cannot be smaller than one into the floor.
    #expect(try number(costs[1], "wal_bytes") > number(costs[0], "wal_bytes"))
    let statements = try #require(costs[2]["statements"] as? [String: [String: Any]])
    #expect(try number(#require(statements["cut"]), "calls") > 0)
    #expect(try number(#require(statements["record"]), "buffers") > 0)
  }

  @Test func publishMeasuresTransactionsWithAndWithoutTheEvent() async throws {
    let report = try await bench(
      "publish",
      "--clients",
      "1,2",
      "--sizes",
      "1,10",
      "--seconds",
      "0.2",
      "--runs",
      "1"
    )
    let cells = try #require(report["cells"] as? [[String: Any]])
    #expect(cells.count == 4)
    for cell in cells {
      for kind in ["with", "without"] {
        let run = try #require((cell[kind] as? [[String: Any]])?.first)
        #expect(try number(run, "per_second") > 0)
      }
    }
  }

  @Test func latencyOfSeveralRunsHasTheMedianOfEach() async throws {
    let report = try await bench("latency", "--rate", "50", "--seconds", "1", "--runs", "2")
    let runs = try #require(report["runs"] as? [[String: Any]])
    #expect(runs.count == 2)
    #expect(runs.allSatisfy { $0["bare_post"] != nil && $0["commit_to_receipt"] != nil })
  }

  @Test func idleCountsStatements() async throws {
    let report = try await bench("idle", "--seconds", "1", "--runs", "1")
    #expect(try number(report, "statements_per_second") > 0)
  }

  @Test func backlogTakesEveryStepOfEveryKind() async throws {
    let report = try await bench(
      "backlog",
      "--log",
      "3000",
      "--waiting",
      "3000",
      "--dead",
      "3000",
      "--cuts",
      "2",
      "--deliveries",
      "1000",
      "--runs",
      "1"
    )
    let rows = try #require(report["rows"] as? [[String: Any]])
    #expect(rows.count == 4)
    for row in rows {
      let steps = try #require(row["steps"] as? [String: [String: Any]])
      #expect(Set(steps.keys) == ["cut", "record", "claim", "record of claimed"])
      #expect(steps.values.allSatisfy { ($0["buffers"] as? [Double])?.count == 2 })
      #expect((row["drains"] as? [Any])?.count == 1)
    }
  }

  @Test func fanoutCutsAndDelivers() async throws {
    let report = try await bench(
      "fanout",
      "--cuts",
      "2",
      "--endpoints",
      "50",
      "--to",
      "1,5",
      "--deliveries",
      "1000",
      "--runs",
      "1"
    )
    let fanouts = try #require(report["fanouts"] as? [[String: Any]])
    #expect(fanouts.count == 2)
    #expect(fanouts.allSatisfy { $0["delivery"] != nil })
  }

  @Test func scaleLosesNothingBetweenDispatchersAndToSlowReceivers() async throws {
    let report = try await bench(
      "scale",
      "--dispatchers",
      "1,2",
      "--events",
      "2000",
      "--receivers",
      "5,60",
      "--slowness",
      "50",
      "--each",
      "2",
      "--runs",
      "1"
    )
    #expect((report["crews"] as? [Any])?.count == 2)
    let crowds = try #require(report["crowds"] as? [[String: Any]])
    let run = try #require((crowds.last?["runs"] as? [[String: Any]])?.first)
    #expect(try number(run, "in_flight") <= 60)
  }

  @Test func pinnedKeepsItsTransactionOpenAndLosesNothing() async throws {
    let report = try await bench("pinned", "--duration", "6s", "--rate", "100", "--connections", "2")
    #expect((report["slices"] as? [Any])?.count == 60)
    let conservation = try #require(report["conservation"] as? [String: Any])
    #expect(try number(conservation, "delivered") == 610)
    // Two transactions or more for each event have come and gone since its snapshot was taken, and it is there still.
    #expect(try number(report, "pinned_transactions") > 610)
  }

  @Test func neighboursAreMeasuredAloneAndBesideFaults() async throws {
    let report = try await bench(
      "neighbours",
      "--neighbours",
      "5",
      "--rate",
      "20",
      "--faults",
      "hang,error,busy",
      "--seconds",
      "1",
      "--runs",
      "1"
    )
    #expect((report["rounds"] as? [Any])?.count == 1)
  }

  @Test func burstIsCutAndAccountedFor() async throws {
    let report = try await bench("burst", "--events", "2000", "--seconds", "1", "--runs", "1")
    let conservation = try #require(report["conservation"] as? [String: Any])
    #expect(try number(conservation, "missing") == 0)
  }

  @Test func allWritesOneReportAndSaysWhatFailed() async throws {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("bench-\(UUID().uuidString).md")
    defer { try? FileManager.default.removeItem(at: file) }
    let run = try await MartletProcess.run(["bench", "all", "--quick", "--only", "idle", "--report", file.path])
    #expect(run.status == 0, "\(run.errors)")
    let report = try String(contentsOf: file, encoding: .utf8)
    #expect(report.contains("## idle"))
    #expect(report.contains("machine"))
    #expect(report.contains("| 2 runs | median (lowest–highest) |"))
  }

  @Test(arguments: [
    (["drain", "--events", "0"], "--events must be 1 to"), (["pinned", "--duration", "soon"], "--duration"),
    (["scale", "--receivers", "10,many"], "\"many\" is not a number"),
    (["all", "--only", "sleep"], "no benchmark sleep"),
    (["idle", "--report", "/nowhere/at/all.md"], "no file can be written in /nowhere/at"),
  ])
  func badOptionsAreRefusedInWords(_ arguments: [String], _ words: String) async throws {
    let run = try await MartletProcess.run(["bench"] + arguments)
    #expect(run.status == 64)
    #expect(run.errors.contains(words), "\(run.errors)")
  }

  private func bench(_ arguments: String...) async throws -> [String: Any] {
    let run = try await MartletProcess.run(["bench"] + arguments + ["--json"])
    try #require(run.status == 0, "\(run.errors)")
    return try #require(JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [String: Any])
  }

  private func number(_ object: [String: Any], _ name: String) throws -> Double {
    try #require((object[name] as? NSNumber)?.doubleValue)
  }
}
