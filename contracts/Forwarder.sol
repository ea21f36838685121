// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Passes native coin on: a payment that no transaction names, only a trace shows.
contract Forwarder {
    function forward(address payable recipient) external payable {
        (bool passed,) = recipient.call{value: msg.value}("");
        require(passed, "not passed on");
    }
}
