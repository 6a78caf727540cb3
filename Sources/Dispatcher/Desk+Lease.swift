import OutboxStore

extension Desk {
  var dispatcher: Int64? { withState { $0.lease?.dispatcher } }

  /// A new lease, or a renewed one, good until `until` on our clock. Returns whether sending had come to a halt for want
  /// of it.
  func granted(_ dispatcher: Int64, until: Duration) -> Bool {
    let now = now
    let stood = withState { state in
      let stood = state.lease.map { $0.until <= now } ?? true
      if state.lease?.dispatcher != dispatcher { state.resyncs = 0 }
      state.lease = (dispatcher, until)
      return stood
    }
    intakeBell.ring()
    recordBell.ring()
    return stood
  }

  /// What the database's clock showed just now; a host's own may be wrong, and receivers refuse what is five minutes off.
  func learned(serverTime seconds: Double) {
    let now = now
    withState { $0.serverTime = (seconds, now) }
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
      state.recording = []
      state.mustResync = false
      state.isRepeatingRecord = false
      state.counters.leasesLost += 1
    }
    leaseBell.ring()
  }

  /// What the database says we hold may not be what we do hold: a reply was lost, or a commit. `ofRecord`: the reply to a
  /// record, which is now repeated.
  func doubt(ofRecord: Bool = false) {
    withState { state in
      state.mustResync = true
      if ofRecord { state.isRepeatingRecord = true }
    }
    intakeBell.ring()
  }

  var isInDoubt: Bool { withState { $0.mustResync } }

  /// All that we hold: queued, in flight, or with an outcome not recorded yet.
  func held() -> [DeliveryKey] {
    withState { state in
      let dispatcher = state.lease?.dispatcher
      return (state.flight.queuedItems + state.inFlight.values.map(\.held)).filter { $0.dispatcher == dispatcher }.map(
        \.key
      )
        + (state.outcomes + state.recording).map(\.delivery)
    }
  }

  var resyncs: Int { withState { $0.resyncs } }

  /// The number of the comparison that begins now.
  func beginResync() -> Int {
    withState { state in
      state.resyncs += 1
      return state.resyncs
    }
  }

  func resynced() {
    withState { $0.mustResync = false }
    recordBell.ring()
  }
}
