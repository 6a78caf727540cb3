import Testing

@testable import HTTPDelivery

@Suite struct OriginGateTests {
  @Test func withoutMultiplexingOnlyTheLimitCounts() {
    var gate = OriginGate(mayMultiplex: false, limit: 2)
    #expect(gate.admit(hasWaited: false) == .start)
    #expect(gate.admit(hasWaited: false) == .start)
    #expect(gate.admit(hasWaited: false) == .wait)
    gate.finish(wasLeader: false, overHTTP2: false)
    #expect(gate.admit(hasWaited: true) == .start)
    #expect(gate.open == 2)
  }

  @Test func firstRequestLeadsAndTheOthersWaitForItsConnection() {
    var gate = OriginGate(mayMultiplex: true, limit: 10)
    #expect(gate.admit(hasWaited: false) == .lead)
    #expect(gate.admit(hasWaited: false) == .wait)
    gate.leaderConnected()
    #expect(gate.admit(hasWaited: true) == .start)
    #expect(gate.admit(hasWaited: false) == .start)
  }

  @Test func afterALeaderThatFailedNobodyWaitsForAnother() {
    var gate = OriginGate(mayMultiplex: true, limit: 10)
    #expect(gate.admit(hasWaited: false) == .lead)
    gate.finish(wasLeader: true, overHTTP2: nil)
    #expect(gate.admit(hasWaited: true) == .start)
    #expect(gate.admit(hasWaited: true) == .start)
  }

  @Test func hostThatSharesConnectionsIsNotLimited() {
    var gate = OriginGate(mayMultiplex: true, limit: 1)
    #expect(gate.admit(hasWaited: false) == .lead)
    gate.leaderConnected()
    #expect(gate.admit(hasWaited: false) == .wait)
    gate.finish(wasLeader: true, overHTTP2: true)
    #expect(gate.admit(hasWaited: true) == .start)
    #expect(gate.admit(hasWaited: true) == .start)
    gate.finish(wasLeader: false, overHTTP2: false)
    #expect(gate.admit(hasWaited: true) == .wait)
  }

  @Test func hostThatStumblesOverHTTP2IsTreatedAsHTTP1() {
    var gate = OriginGate(mayMultiplex: true, limit: 2)
    #expect(gate.admit(hasWaited: false) == .lead)
    gate.stopMultiplexing()
    #expect(gate.admit(hasWaited: false) == .start)
    #expect(gate.admit(hasWaited: false) == .wait)
    gate.finish(wasLeader: true, overHTTP2: true)
    #expect(gate.admit(hasWaited: false) == .start)
    #expect(gate.admit(hasWaited: false) == .wait)
  }
}
