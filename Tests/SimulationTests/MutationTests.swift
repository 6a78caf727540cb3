import Testing

extension SimulationTests {
  /// The protocol broken on purpose: a simulation that does not notice is worth nothing. docs/simulation.md has the list.
  @Suite struct MutationTests {
    /// Seeds that each must be noticed within.
    static let patience: UInt64 = 3000

    @Test(arguments: Mutation.allCases) func brokenProtocolIsNoticed(_ mutation: Mutation) async {
      let report = await simulate(1..<1 + Self.patience, mutation: mutation, failuresWanted: 1)
      let first = report.failures.first
      print("\(mutation.rawValue): after \(report.seeds) seeds: \(first?.violation ?? "NOT NOTICED")")
      #expect(first != nil, "nobody notices \(mutation.rawValue)")
    }
  }
}
