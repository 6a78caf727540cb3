import OutboxStore

extension Desk {
  var dispatcher: Int64? { withState { $0.lease?.dispatcher } }

  /// A new lease, or a renewed one, good until `until` on our clock. Returns whether sending had come to a halt for want
  /// of it.
  func granted(_ dispatcher: Int64, until: Duration) -> Bool {
    let now = now
    let stood = withState { state in
      let stood = state.lease.map { $0.until <= now } ?? true
      state.lease = (dispatcher, until)
      return stood
    }
    intakeBell.ring()
    recordBell.ring()
    return stood
  }

  /// The lease is gone: everything it stood for belongs to others now. What is in flight cannot be called back; its
  /// outcomes will be ignored.
  func lost(_ dispatcher: Int64) {
    withState { state in
      guard state.lease?.dispatcher == dispatcher else { return }
      state.lease = nil
      _ = state.flight.withdrawAll()
      state.outcomes = []
      state.batches = [:]
      state.claimed = []
      state.counters.leasesLost += 1
    }
    leaseBell.ring()
  }

  /// All that we know the database has handed to us: for `resync`.
  func known() -> (batches: [Int64], claimed: [DeliveryKey]) {
    withState { (Array($0.batches.keys), Array($0.claimed)) }
  }
}
