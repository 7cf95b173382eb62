# SPDX-License-Identifier: Apache-2.0
"""What `HttpEventTrigger` asks of an answer; it loads this module anew for each."""


async def is_completed(response):
    return response.json()["status"] == "completed"
