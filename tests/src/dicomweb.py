"""A partner that uses Python's dicomweb-client: finds a study, and fetches it in every way that the client knows.

Arguments: service, token, Study Instance UID. Says on standard output, as JSON, what it was given.
"""

import hashlib
import json
import sys

from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session

service, token, study = sys.argv[1:]
session = create_session()
session.headers["Authorization"] = f"Bearer {token}"
client = DICOMwebClient(service, session=session)


def digest(data):
    return hashlib.sha256(data).hexdigest()


found = client.search_for_studies(search_filters={"PatientID": "*"})
series = client.search_for_series(study)
instances = client.search_for_instances(study)
uid = instances[0]["00080018"]["Value"][0]
parent = client.search_for_instances(search_filters={"SOPInstanceUID": uid})[0]["0020000E"]["Value"][0]
metadata = client.retrieve_study_metadata(study)
pixels = {
    str(image.SOPInstanceUID): digest(image.PixelData)
    for image in client.retrieve_study(study, media_types=(("application/dicom", "*"),))
}
frames = client.retrieve_instance_frames(study, parent, uid, [1])
one = client.retrieve_instance(study, parent, uid)
uri = next(it for it in metadata if it["00080018"]["Value"][0] == uid)["7FE00010"]["BulkDataURI"]
bulk = client.retrieve_bulkdata(uri)
print(
    json.dumps(
        {
            "studies": [it["0020000D"]["Value"][0] for it in found],
            "name": found[0]["00100010"]["Value"][0]["Alphabetic"],
            "series": len(series),
            "instances": len(instances),
            "metadata": sorted(it["00080018"]["Value"][0] for it in metadata),
            "pixels": pixels,
            "uid": uid,
            "frame": digest(frames[0]),
            "one": digest(one.PixelData),
            "bulk": digest(bulk[0]),
        }
    )
)
