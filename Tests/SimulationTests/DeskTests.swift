import HTTPDelivery
import Testing

@testable import Dispatcher

/// What a desk decides, call by call: for what whole systems show but once in ten thousand seeds.
@Suite struct DeskTests {
  @Test func whatIsHeldIsNotComparedWhileARecordIsUnderWay() {
    let desk = Desk(limits: Desk.Limits(), egress: EgressPolicy())
    _ = desk.granted(1, until: desk.now + .seconds(3600))
    #expect(desk.beginRecord())
    desk.doubt()
    #expect(desk.beginResync() == nil)
    desk.endRecord()
    #expect(desk.beginResync()?.number == 1)
    // Nor the other way round.
    #expect(!desk.beginRecord())
    desk.resynced()
    #expect(desk.beginRecord())
  }
}
