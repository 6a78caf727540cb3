import Foundation
import TestSupport
import Testing

/// Every benchmark, at a size that is no measurement: that it runs, that it proves what it has to prove of deliveries (it
/// fails otherwise), and that its report has what it promises.
@Suite(.serialized) struct BenchTests {
  @Test func drainReportsTheFloorBesideItself() async throws {
    let round = try await BenchReport.of("drain --events 2000 --runs 1").only("rounds")
    for figure in ["per_second", "bare_per_second", "wal_bytes"] { #expect(try round.number(figure) > 0) }
  }

  @Test func costCountsInsertAndDeliveryBesideABareInsert() async throws {
    let round = try await BenchReport.of("cost --events 2000 --runs 1").only("rounds")
    let (floor, insert, delivery) = try (round.part("floor"), round.part("insert"), round.part("delivery"))
    for cost in [floor, insert, delivery] { #expect(try cost.number("wal_bytes") > 0) }
    // An insert into the log, which has an index more, cannot be smaller than one into the floor.
    #expect(try insert.number("wal_bytes") > floor.number("wal_bytes"))
    let statements = try delivery.part("statements")
    #expect(try statements.part("cut").number("calls") > 0)
    #expect(try statements.part("record").number("buffers") > 0)
  }

  @Test func publishMeasuresTransactionsWithAndWithoutTheEvent() async throws {
    let cells = try await BenchReport.of("publish --clients 1,2 --sizes 1,10 --seconds 0.2 --runs 1").list("cells")
    #expect(cells.count == 4)
    for cell in cells {
      for kind in ["with", "without"] { #expect(try cell.only(kind).number("per_second") > 0) }
    }
  }

  @Test func latencyOfSeveralRunsHasTheMedianOfEach() async throws {
    let runs = try await BenchReport.of("latency --rate 50 --seconds 1 --runs 2").list("runs")
    #expect(runs.count == 2)
    #expect(runs.allSatisfy { $0.has("bare_post") && $0.has("commit_to_receipt") })
  }

  @Test func idleCountsStatements() async throws {
    #expect(try await BenchReport.of("idle --seconds 1 --runs 1").number("statements_per_second") > 0)
  }

  @Test func backlogTakesEveryStepOfEveryKind() async throws {
    let rows = try await BenchReport.of(
      "backlog --log 3000 --waiting 3000 --dead 3000 --cuts 2 --deliveries 1000 --runs 1"
    ).list("rows")
    #expect(rows.count == 4)
    for row in rows {
      let steps = try row.part("steps")
      #expect(Set(steps.values.keys) == ["cut", "record", "claim", "record of claimed"])
      for name in steps.values.keys { #expect((try steps.part(name).values["buffers"] as? [Double])?.count == 2) }
      #expect((row.values["drains"] as? [Any])?.count == 1)
    }
  }

  @Test func fanoutCutsAndDelivers() async throws {
    let fanouts = try await BenchReport.of(
      "fanout --cuts 2 --endpoints 50 --to 1,5 --deliveries 1000 --runs 1"
    ).list("fanouts")
    #expect(fanouts.count == 2)
    #expect(fanouts.allSatisfy { $0.has("delivery") })
  }

  @Test func scaleLosesNothingBetweenDispatchersAndToSlowReceivers() async throws {
    let report = try await BenchReport.of(
      "scale --dispatchers 1,2 --events 2000 --receivers 5,60 --slowness 50 --each 2 --runs 1"
    )
    #expect(try report.list("crews").count == 2)
    let crowd = try #require(report.list("crowds").last)
    #expect(try crowd.only("runs").number("in_flight") <= 60)
  }

  @Test func pinnedKeepsItsTransactionOpenAndLosesNothing() async throws {
    let report = try await BenchReport.of("pinned --duration 6s --rate 100 --connections 2")
    #expect(try report.list("slices").count == 60)
    #expect(try report.part("conservation").number("delivered") == 610)
    // Two transactions or more for each event have come and gone since its snapshot was taken, and it is there still.
    #expect(try report.number("pinned_transactions") > 610)
  }

  @Test func neighboursAreMeasuredAloneAndBesideFaults() async throws {
    _ = try await BenchReport.of("neighbours --neighbours 5 --rate 20 --faults hang,error,busy --seconds 1 --runs 1")
      .only("rounds")
  }

  @Test func burstIsCutAndAccountedFor() async throws {
    let report = try await BenchReport.of("burst --events 2000 --seconds 1 --runs 1")
    #expect(try report.part("conservation").number("missing") == 0)
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
    (["drain", "--events", "0"], "'--events <events>': \"0\" is not a number from 1 to 10000000"),
    (["pinned", "--duration", "soon"], "--duration"),
    (["scale", "--receivers", "10,many"], "\"many\" is not a number"),
    (["all", "--only", "sleep"], "no benchmark sleep"),
    (["idle", "--report", "/nowhere/at/all.md"], "no file can be written in /nowhere/at"),
  ])
  func badOptionsAreRefusedInWords(_ arguments: [String], _ words: String) async throws {
    let run = try await MartletProcess.run(["bench"] + arguments)
    #expect(run.status == 64)
    #expect(run.errors.contains(words), "\(run.errors)")
  }
}
