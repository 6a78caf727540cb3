import TestSupport
import Testing

/// `martlet chaos`, so short that it can be run with every change; scripts/chaos is the long one.
extension KillTests {
  @Test func nothingIsLostThroughKillsAndCrashes() async throws {
    try await chaos("kill", "crash", "--rounds", "2")
  }

  @Test func nothingIsLostThroughFaultsThatOverlap() async throws {
    try await chaos("mixed", "--rounds", "2")
  }

  /// Too short for its trends to be judged: what arrived is.
  @Test func aShortEnduranceRunHolds() async throws {
    // By time: a machine to itself makes 30,000 deliveries before the first fault.
    let run = try await chaos("endurance", "--deliveries", "1000000", "--duration", "30s", "--fault-every", "3s")
    #expect(run.errors.contains(", in flight "), "no fault was made: \(run.errors)")
  }

  @Test func wrongOptionsOfAnEnduranceRunAreRefused() async throws {
    let wrong = [
      ["--deliveries", "1"], ["--fault-every", "soon"], ["--duration", "0s"], ["--report", "/nowhere/file"],
    ]
    for arguments in wrong {
      let run = try await MartletProcess.run(["chaos", "endurance"] + arguments)
      #expect(run.status == 64 && run.errors.contains(arguments[1]), "\(arguments): \(run.errors)")
    }
  }

  /// With this seed all hosts' clocks go back at once: whoever waits until a time of day would stop.
  @Test func aHostsClockMayBeSetAnyhow() async throws {
    try await chaos("clock", "--rounds", "2", "--seed", "6")
  }

  @discardableResult
  private func chaos(_ arguments: String...) async throws -> MartletProcess.Result {
    let run = try await MartletProcess.run(["chaos"] + arguments)
    #expect(run.status == 0, "\(run.output)\(run.errors)")
    #expect(!run.output.contains("not measured"), "\(run.output)")
    print(run.output)
    return run
  }
}
