import Testing
@testable import HTTPDelivery
@Test func smoke() {}
